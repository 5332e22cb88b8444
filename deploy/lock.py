"""`make lock`: compile the requirements files from the dependency groups of pyproject.toml.

    python -m deploy.lock [--upgrade]

Versions that are pinned already stay, unless `--upgrade` asks for the newest.
"""

from __future__ import annotations

import subprocess
import sys

# Each file is constrained by those before it, so that all three can be installed together.
FILES = {"requirements.txt": "services", "requirements-local.txt": "local", "requirements-dev.txt": "dev"}

# vega-datasets wants pandas (with numpy 100 MB). We read the CSV files in its wheel and never import it. What plots the
# benchmark does need numpy.
UNUSED = {"local": ("pandas", "numpy")}


def main() -> None:
    """See the module docstring."""
    done: list[str] = []
    for file, group in FILES.items():
        words = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        # Nothing about the machine it was compiled on.
        words += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--group", group]
        words += ["pyproject.toml"] if group == "services" else []
        for package in UNUSED.get(group, ()):
            words += ["--no-emit-package", package]
        for constraint in done:
            words += ["--constraint", constraint]
        subprocess.run([*words, "--output-file", file, *sys.argv[1:]], check=True)  # noqa: S603
        done.append(file)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError:
        sys.exit("make lock: uv found no set of versions: see above")

"""`make clean`: remove what the Makefile and a stack made, and nothing else: `python3 deploy/clean.py STATE`.

Exit code 1, with one sentence and nothing removed, while a stack runs on the state folder.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deploy.server import ServerError  # noqa: E402  # found through the line above, for a Python without our venv
from deploy.stack import StackLock  # noqa: E402

# STATE may be any folder, a home by mistake: what is not on this list stays.
OURS = ("valkey", "postgres", "storage", "logs", "manager.sock", "stack.json", "stack.json.new", "lock")
CACHES = (".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".bench")


def main() -> None:
    """See the module docstring."""
    state = Path(sys.argv[1]).expanduser()
    try:
        if state.is_dir() and (state / "lock").exists():
            StackLock(state)
            for name in OURS:
                remove(state / name)
            with suppress(OSError):
                state.rmdir()
        for path in [*(ROOT / name for name in CACHES), *caches_of_python(ROOT)]:
            remove(path)
    except ServerError as error:
        sys.exit(f"make clean: {error}")
    except OSError as error:
        sys.exit(f"make clean: cannot remove {error.filename}: {error.strerror}")


def caches_of_python(folder: Path) -> list[Path]:
    """Every __pycache__ below a folder."""
    return [path for path in folder.rglob("__pycache__") if ".git" not in path.relative_to(folder).parts]


def remove(path: Path) -> None:
    """A file, a folder or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()

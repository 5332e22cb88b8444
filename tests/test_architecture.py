"""Which part may use which: hub → headway ← workers, and what the wheel of `headway` holds."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

EVERYWHERE = {"headway", "msgspec", "redis"}
BESIDES = {
    "headway/celery/": {"celery", "kombu"},
    "headway/client.py": {"websockets"},
    "headway/logs.py": {"structlog"},
}
"""What a part of `headway` may import beyond that."""


def imports(path: Path) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module).partition(".")[0])
    return found


def modules(package: str) -> list[Path]:
    """The Python files of a package, relative to the repository."""
    found = sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("path", modules("headway"), ids=str)
def test_headway_needs_little(path: Path) -> None:
    """The standard library, redis and msgspec; each further package in one place only."""
    allowed = set(sys.stdlib_module_names) | EVERYWHERE
    for part, packages in BESIDES.items():
        if path.as_posix().startswith(part):
            allowed |= packages
    assert imports(ROOT / path) <= allowed


@pytest.mark.parametrize(("package", "other"), [("hub", "workers"), ("workers", "hub")])
def test_hub_and_workers_do_not_know_each_other(package: str, other: str) -> None:
    """The hub sends tasks by name."""
    for path in modules(package):
        assert not imports(ROOT / path) & {other, "tests", "bench"}, path


def test_importing_headway_does_not_import_celery() -> None:
    """Nor anything else that is an extra."""
    program = "import sys, headway, headway.store; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"celery", "kombu", "websockets", "structlog", "hub", "workers"}


def test_the_wheel_holds_headway_and_nothing_else(tmp_path: Path) -> None:
    """With its scripts and its type marker."""
    build = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        packed = set(wheel.namelist())
    content = {name for name in packed if ".dist-info/" not in name}
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "headway").rglob("*") if path.is_file()}
    assert content == {name for name in source if "__pycache__" not in name}
    assert {"headway/py.typed", "headway/scripts/publish.lua", "headway/scripts/read.lua"} <= content

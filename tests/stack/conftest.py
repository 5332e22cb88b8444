"""One whole stack for the tests that look at it from outside: the page, the demo."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.server import free_port
from tests.deploy.stacks import UpProcess


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    """A stack that is ready; leave it running."""
    folder = tmp_path_factory.mktemp("stack")
    up = UpProcess(folder / "state", free_port(), folder / "output", "--workers", "2")
    try:
        up.ready()
        yield up
    finally:
        up.end()


@pytest.fixture(scope="session")
def url(stack: UpProcess) -> str:
    """The address of its hub."""
    return f"http://127.0.0.1:{stack.port}"

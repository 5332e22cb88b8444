"""Whole stacks, started the way `make up` starts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.server import free_port
from tests.deploy.stacks import UpProcess

StackFactory = Callable[..., UpProcess]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[StackFactory]:
    """Start stacks; each on a free port and a state folder of its own unless the test says otherwise."""
    started: list[UpProcess] = []

    def start(*options: str, state: Path | None = None, port: int = 0, **environment: str) -> UpProcess:
        number = len(started)
        state = state or tmp_path / f"state {number}"
        stack = UpProcess(state, port or free_port(), tmp_path / f"output {number}", *options, **environment)
        started.append(stack)
        return stack

    try:
        yield start
    finally:
        for stack in started:
            stack.end()

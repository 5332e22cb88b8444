"""Every line of a process comes out of one pipeline, each in a process of its own: logging is global."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def lines(program: str, **environment: str) -> list[dict[str, Any]]:
    """What a program that has configured its logging writes to stderr."""
    program = f"import logging, structlog\nfrom headway.logs import configure\nconfigure('svc')\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_both_kinds_of_logger_write_the_same_line() -> None:
    """structlog's and the standard library's, uvicorn's and Celery's among them."""
    ours, theirs = lines("structlog.get_logger('a').info('hello', n=1)\nlogging.getLogger('a').info('hello %s', 'you')")
    assert ours.pop("n") == 1
    assert (ours.pop("event"), theirs.pop("event")) == ("hello", "hello you")
    assert ours.pop("timestamp") <= theirs.pop("timestamp")
    assert ours == theirs == {"level": "info", "logger": "a", "service": "svc"}


def test_bound_context_is_in_every_line() -> None:
    """Task id and request id, also where the standard library logs."""
    for line in lines(
        "structlog.contextvars.bind_contextvars(task_id='t', request_id='r')\n"
        "structlog.get_logger().info('a')\nlogging.getLogger('b').info('b')"
    ):
        assert (line["task_id"], line["request_id"]) == ("t", "r")


@pytest.mark.parametrize("logger", ["structlog.get_logger()", "logging.getLogger()"])
def test_an_exception_is_part_of_its_line(logger: str) -> None:
    """One line, with the traceback in it."""
    (line,) = lines(f"try:\n    1 / 0\nexcept ZeroDivisionError:\n    {logger}.exception('oops')")
    assert line["event"] == "oops"
    assert line["level"] == "error"
    assert "ZeroDivisionError: division by zero" in line["exception"]


def test_extra_ids_are_kept() -> None:
    """A record's `extra` may name task and request."""
    (line,) = lines("logging.getLogger('a').info('x', extra={'task_id': 't', 'other': 1})")
    assert line["task_id"] == "t"
    assert "other" not in line


@pytest.mark.parametrize(("level", "count"), [("debug", 3), ("INFO", 2), ("ERROR", 1)])
def test_the_level_comes_from_the_environment(level: str, count: int) -> None:
    """For both kinds of logger; INFO without it."""
    program = "log = structlog.get_logger()\nlog.debug('d')\nlogging.getLogger('x').info('i')\nlog.error('e')"
    assert len(lines(program, HEADWAY_LOG_LEVEL=level)) == count


def test_a_level_that_does_not_exist_is_refused() -> None:
    """With the name of the variable."""
    with pytest.raises(subprocess.CalledProcessError) as failure:
        lines("", HEADWAY_LOG_LEVEL="LOUD")
    assert "HEADWAY_LOG_LEVEL must be a level such as INFO or DEBUG, not 'LOUD'" in failure.value.stderr


def test_what_json_cannot_say_does_not_break_a_line() -> None:
    """Objects, bytes and half surrogate pairs."""
    lines("structlog.get_logger().info('x \\udc80', a=object(), b=b'\\xff', c={1})")


def test_a_terminal_gets_text() -> None:
    """For whoever reads along."""
    ours, theirs = pty.openpty()
    program = (
        "from headway.logs import configure\nconfigure('svc')\nimport logging\nlogging.getLogger('a').info('hello')"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, stderr=theirs, check=True, timeout=30)
    os.close(theirs)
    text = os.read(ours, 4096).decode()
    os.close(ours)
    assert "hello" in text
    assert not text.startswith("{")

"""The catalogue as the hub reads it, and arguments against it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub import catalogue
from hub.problems import Problem
from tests.hub.running import SIMULATE

ENTRY = catalogue.find({"simulate": json.dumps(SIMULATE).encode()}, "simulate")


def refused(args: dict[str, Any]) -> Problem:
    """The problem with these arguments."""
    with pytest.raises(Problem) as problem:
        catalogue.check(ENTRY, args)
    return problem.value


def test_right_arguments_pass() -> None:
    """With and without what is optional."""
    catalogue.check(ENTRY, {"steps": 1})
    catalogue.check(ENTRY, {"steps": 1, "seconds": 2.5, "message": ""})


def test_a_missing_argument_is_named() -> None:
    """The field is the argument, not the object that lacks it."""
    problem = refused({})
    assert problem.members["field"] == "args.steps"
    assert "required" in problem.members["errors"][0]["reason"]


def test_the_list_of_errors_has_an_end() -> None:
    """A thousand wrong arguments are not a thousand entries, and a huge value is not repeated whole."""
    schema = {"type": "object", "properties": {f"a{n}": {"type": "integer"} for n in range(1_000)}}
    entry = catalogue.Entry("t", "", "q", schema)
    with pytest.raises(Problem) as problem:
        catalogue.check(entry, {f"a{n}": "x" * 10_000 for n in range(1_000)})
    errors = problem.value.members["errors"]
    assert len(errors) == catalogue.MAX_ERRORS
    assert all(len(error["reason"]) <= 300 for error in errors)


@pytest.mark.parametrize("text", ["\0", "a\0", "\\\0", {"deep": ["\0"]}])
def test_nul_is_refused_wherever_it_is(text: Any) -> None:
    """PostgreSQL has no room for it, also not in JSON."""
    entry = catalogue.Entry("t", "", "q", {})
    with pytest.raises(Problem, match="NUL"):
        catalogue.check(entry, {"x": text})


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "u0000", "\\"])
def test_what_only_looks_like_nul_passes(text: str) -> None:
    """A backslash and some letters are text."""
    catalogue.check(catalogue.Entry("t", "", "q", {}), {"x": text})


def test_an_unknown_task_is_told_the_known_ones() -> None:
    """So that a typo is found at once."""
    with pytest.raises(Problem, match="simulate") as problem:
        catalogue.find({"simulate": json.dumps(SIMULATE).encode()}, "simulte")
    assert problem.value.status == 422

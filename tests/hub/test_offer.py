"""A task of the catalogue in words."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from hub.offer import Offer, offer


def offered(required: tuple[str, ...] = (), task: str = "t", **properties: dict[str, Any]) -> Offer:
    """The offer of a task with these parameters."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return offer({"task": task, "description": "", "queue": "q", "schema": schema}, "http://hub:8000")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 1_000_000}, "integer, 1 to 1,000,000"),
        ({"type": "number", "minimum": 0}, "number, at least 0"),
        ({"type": "string", "maxLength": 40}, "string, at most 40 characters"),
        ({"type": "string", "minLength": 2, "maxLength": 2}, "string, exactly 2 characters"),
        ({"type": "string", "minLength": 1, "maxLength": 1}, "string, exactly 1 character"),
        ({"type": "array", "items": {}, "minItems": 1}, "list: any value, at least 1 entry"),
        ({"enum": ["md5", "sha1"]}, "one of md5, sha1"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, "list: string, at least 2 entries"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "object of values: integer"),
        ({"type": "string", "format": "upload-ref", "pattern": "^f_"}, "ref of an upload"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "integer, at least 1"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "integer or string"),
        ({"type": ["integer", "null"]}, "integer or null"),
        ({}, "any value"),
    ],
)
def test_types(schema: dict[str, Any], words: str) -> None:
    """What JSON Schema says, for reading."""
    assert offered(x=schema).parameters[0].type == words


def test_a_parameter_says_what_it_is_for() -> None:
    """Description, default, and whether it must be given; a default of null says nothing."""
    optional = {"anyOf": [{"type": "string", "description": "inner"}, {"type": "null"}], "default": None}
    a, b = offered(("a",), a={"type": "integer", "description": "how many"}, b=optional).parameters
    assert (a.description, a.required, a.default) == ("how many", True, None)
    assert (b.description, b.required, b.default) == ("inner", False, None)
    assert offered(c={"type": "string", "default": "x"}).parameters[0].default == '"x"'


def test_the_command_is_a_command() -> None:
    """A shell reads it as meant, whatever the task is called, and the required arguments are in it."""
    steps = {"type": "integer", "minimum": 1, "maximum": 5}
    (command,) = offered(("steps",), "it's $HOME", steps=steps, other={"type": "string"}).commands
    words = shlex.split(command)
    assert words[:2] == ["curl", "http://hub:8000/tasks"]
    assert json.loads(words[-1]) == {"task": "it's $HOME", "args": {"steps": 5}}


def test_a_file_is_uploaded_first() -> None:
    """A task that takes a ref has a command to get one."""
    upload, _ = offered(("file",), file={"type": "string", "format": "upload-ref"}).commands
    assert "/uploads -F file=@" in upload


@pytest.mark.parametrize(("entry", "served"), [({}, True), ({"served": True}, True), ({"served": False}, False)])
def test_who_serves_it(entry: dict[str, Any], served: bool) -> None:
    """Only what is known to be unserved is said to be."""
    assert offer({"task": "t", "description": "", "schema": {}} | entry, "").served is served

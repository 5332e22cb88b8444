"""A task of the catalogue as its page shows it: its parameters in words, and how to start it with curl."""

from __future__ import annotations

import json
import shlex
from typing import Any, NamedTuple

from hub import card

Schema = dict[str, Any]

_RANGES = (
    ("minimum", "maximum", "", ""),
    ("minLength", "maxLength", " character", " characters"),
    ("minItems", "maxItems", " entry", " entries"),
)
"""Keywords of the bounds, and what is counted: one, and several."""


class Parameter(NamedTuple):
    """One row of a task's table; all texts are plain."""

    name: str
    type: str
    description: str
    required: bool
    default: str | None
    """None when there is none worth telling."""


class Offer(NamedTuple):
    """What templates/catalogue.html shows of one task."""

    task: str
    description: str
    served: bool
    """False: no worker has announced it lately."""
    parameters: list[Parameter]
    commands: list[str]
    """For a shell: an upload, if the task takes a file, and the submission."""


def offer(entry: dict[str, Any], base: str) -> Offer:
    """Word an entry of `GET /catalogue`. `base` is the address of this hub, without a slash at the end."""
    schema = entry["schema"]
    required = schema.get("required", [])
    properties: dict[str, Schema] = schema.get("properties", {})
    parameters = [_parameter(name, properties[name], name in required) for name in properties]
    return Offer(
        task=entry["task"],
        description=entry["description"],
        served=entry.get("served") is not False,
        parameters=parameters,
        commands=_commands(entry["task"], {name: properties.get(name, {}) for name in required}, base),
    )


def _parameter(name: str, schema: Schema, required: bool) -> Parameter:
    inner = _inner(schema)
    ranges = [_range(inner.get(least), inner.get(most), *units) for least, most, *units in _RANGES]
    default = schema.get("default")
    return Parameter(
        name=name,
        type=", ".join([_type(schema), *filter(None, ranges)]),
        description=schema.get("description") or inner.get("description") or "",
        required=required,
        default=None if default is None else json.dumps(default, ensure_ascii=False),
    )


def _range(least: float | None, most: float | None, one: str, many: str) -> str:
    low, high = (None if bound is None else card.amount(bound) for bound in (least, most))
    unit = one if (low if most is None else high) == "1" else many
    if low is not None and high is not None:
        return f"{low} to {high}{unit}" if low != high else f"exactly {low}{unit}"
    return f"at least {low}{unit}" if low is not None else f"at most {high}{unit}" if high is not None else ""


def _inner(schema: Schema) -> Schema:
    """The schema of an optional parameter's value: what it is when it is not null."""
    options = [option for option in schema.get("anyOf", []) if option.get("type") != "null"]
    return options[0] if len(options) == 1 else schema


def _type(schema: Schema) -> str:
    schema = _inner(schema)
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(card.plain, schema["enum"]))
    if schema.get("format") == "upload-ref":
        return "ref of an upload"
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"list: {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of values: {_type(schema['additionalProperties'])}"
    return kind if isinstance(kind, str) else " or ".join(kind)


def _commands(task: str, required: dict[str, Schema], base: str) -> list[str]:
    body = json.dumps({"task": task, "args": {name: _example(required[name]) for name in required}}, ensure_ascii=False)
    header = "Content-Type: application/json"
    submit = f"curl {shlex.quote(f'{base}/tasks')} -H {shlex.quote(header)} \\\n  -d {shlex.quote(body)}"
    takes_a_file = any(_inner(schema).get("format") == "upload-ref" for schema in required.values())
    upload = f"curl {shlex.quote(f'{base}/uploads')} -F file=@data.csv  # answers with the ref"
    return [upload, submit] if takes_a_file else [submit]


def _example(schema: Schema) -> Any:
    """A value to begin with. It need not pass every check: it shows where to put one that does."""
    schema = _inner(schema)
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return min(max(10, schema.get("minimum", 10)), schema.get("maximum", 10))
    if kind == "array":
        return [_example(schema.get("items", {}))]
    simple: dict[Any, Any] = {"boolean": True, "object": {}, "null": None}
    return simple.get(kind, "f_…" if schema.get("format") == "upload-ref" else "…")

"""The catalogue as the hub uses it: which tasks may be submitted, and whether arguments are what a task takes."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
import msgspec
from jsonschema import Draft202012Validator

from headway.storage import Storage, UnknownRef
from hub.problems import Problem

MAX_ERRORS = 20
"""Wrong arguments that one answer lists."""


class Entry(msgspec.Struct, frozen=True):
    """A task that may be submitted."""

    task: str
    description: str
    queue: str
    schema: dict[str, Any]


def parse(entries: dict[str, bytes]) -> list[Entry]:
    """What the workers have announced, by name."""
    decoder = msgspec.json.Decoder(Entry)
    return [decoder.decode(entries[name]) for name in sorted(entries)]


def find(entries: dict[str, bytes], task: str) -> Entry:
    """The entry of a task; a `Problem` that names the ones there are."""
    if task not in entries:
        known = ", ".join(sorted(entries)) or "none, as no worker has announced any yet"
        raise Problem(422, f"There is no task {task[:100]!r} to submit. The catalogue has: {known}.", field="task")
    return msgspec.json.decode(entries[task], type=Entry)


def check(entry: Entry, args: dict[str, Any]) -> None:
    """Validate arguments against the task's schema; a `Problem` says of each wrong one which and why."""
    errors: list[dict[str, str]] = []
    for error in Draft202012Validator(entry.schema).iter_errors(args):
        path = ["args", *(str(part) for part in error.absolute_path)]
        errors.append({"field": ".".join(path), "reason": error.message[:300]})
        if len(errors) >= MAX_ERRORS:
            break
    if errors:
        first = errors[0]
        detail = f"The arguments do not fit {entry.task}: {first['field']}: {first['reason']}."
        raise Problem(422, detail, field=first["field"], errors=errors)


async def check_files(entry: Entry, args: dict[str, Any], storage: Storage) -> None:
    """Whether every ref among the arguments has a file, so that a wrong one is told now and not by the worker."""
    for name, schema in entry.schema.get("properties", {}).items():
        ref = args.get(name)
        if schema.get("format") == "upload-ref" and isinstance(ref, str):
            try:
                await anyio.to_thread.run_sync(storage.path, ref)
            except UnknownRef as error:
                field = f"args.{name}"
                reason = str(error)
                raise Problem(
                    422, f"{field}: {reason}", field=field, errors=[{"field": field, "reason": reason}]
                ) from None

"""The catalogue: the tasks that may be submitted, and what each takes, announced by the workers that serve them.

A task enters it with `@app.task(catalogue=True)`. Its JSON Schema comes from the signature of its body.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import typing
from collections.abc import Mapping
from typing import Any

import msgspec
import redis
from celery import Celery

from headway import keys
from headway.celery.integration import Integration
from headway.events import encode

logger = logging.getLogger(__name__)

INTERVAL = 15.0
"""Seconds between two announcements: a store that lost its data knows the catalogue again after that."""


def entry(task: Any) -> dict[str, Any]:
    """The catalogue entry of a task; `TypeError` if its parameters cannot be described in JSON Schema."""
    hints = typing.get_type_hints(task.run, include_extras=True)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(task.run).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"task {task.name!r} cannot enter the catalogue: *{name} has no schema")
        hint = hints.get(name, Any)
        fields.append((name, hint) if parameter.default is parameter.empty else (name, hint, _default(parameter)))
    arguments = msgspec.defstruct("arguments", fields, kw_only=True, forbid_unknown_fields=True)
    (schema,), components = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    schema = components.pop("arguments", schema)
    if components:
        schema["$defs"] = components
    schema.pop("title", None)
    text = inspect.getdoc(task.run) or ""
    return {
        "task": task.name,
        "description": " ".join(text.split("\n\n")[0].split()),
        "queue": task.app.amqp.router.route({}, task.name)["queue"].name,
        "schema": schema,
    }


def _default(parameter: inspect.Parameter) -> Any:
    value = parameter.default
    return msgspec.field(default_factory=lambda: type(value)(value)) if isinstance(value, (list, dict, set)) else value


def entries(app: Celery) -> dict[str, bytes]:
    """Task name → JSON of its entry, for every task that asks to be in the catalogue and can be described."""
    found = {}
    for name, task in sorted(app.tasks.items()):
        if getattr(task, "catalogue", False):
            try:
                found[name] = encode(entry(task))
            except (TypeError, NameError) as error:  # NameError: an annotation that exists for type checkers only
                logger.error("task %s is not in the catalogue: %s", name, error)  # noqa: TRY400  # its author's, not ours
    return found


class _Announcer(threading.Thread):
    def __init__(self, client: redis.Redis, catalogue: Mapping[Any, Any]) -> None:
        super().__init__(name="headway-catalogue", daemon=True)
        self._client = client
        self._catalogue = catalogue
        self.done = threading.Event()

    def run(self) -> None:
        while True:
            try:
                now = time.time()
                with self._client.pipeline() as pipe:
                    pipe.hset(keys.CATALOGUE, mapping=self._catalogue)
                    pipe.hset(keys.ANNOUNCED, mapping=dict.fromkeys(self._catalogue, now))
                    pipe.execute()
            except redis.RedisError as error:
                logger.warning("the catalogue cannot be announced: %s", error)
            if self.done.wait(INTERVAL):
                return


_announcer: _Announcer | None = None


def announce(app: Celery, headway: Integration) -> None:
    """Announce the app's catalogue now, and again and again until `stop()`."""
    global _announcer
    catalogue = entries(app)
    if catalogue and _announcer is None:
        _announcer = _Announcer(headway.client, catalogue)
        _announcer.start()


def stop() -> None:
    """End the announcements of this process."""
    global _announcer
    if _announcer is not None:
        _announcer.done.set()
        _announcer = None

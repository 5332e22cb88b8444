"""The catalogue: which tasks may be submitted, and what each takes."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pytest
from celery import Celery
from jsonschema import Draft202012Validator

from headway import keys
from headway.celery.catalogue import entries, entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Worker = Any


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app with nothing in it."""
    app = Celery("catalogue", set_as_current=False, broker="memory://")
    yield app
    app.close()


Rows = Annotated[int, msgspec.Meta(ge=1, le=10, description="How many rows")]


def offered(rows: Rows, kind: Literal["a", "b"] = "a", name: str | None = None, tags: list[str] = ["x"]) -> None:  # noqa: B006
    """Do what is
    offered.

    Not part of the description.
    """


@pytest.fixture
def schema(app: Celery) -> dict[str, Any]:
    """The schema of `offered`."""
    schema = entry(app.task(offered, shared=False, name="offered"))["schema"]
    assert isinstance(schema, dict)
    return schema


@pytest.mark.parametrize(
    "arguments",
    [{"rows": 1}, {"rows": 10, "kind": "b"}, {"rows": 2, "name": None}, {"rows": 2, "name": "n", "tags": ["a", "b"]}],
)
def test_arguments_that_fit_are_valid(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Defaults make a parameter optional."""
    Draft202012Validator(schema).validate(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"rows": 0},
        {"rows": 11},
        {"rows": "1"},
        {"rows": 1, "kind": "c"},
        {"rows": 1, "x": 1},
        {"rows": 1, "tags": [1]},
    ],
)
def test_arguments_that_do_not_fit_are_invalid(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Missing, out of bounds, of a wrong type, unknown."""
    assert not Draft202012Validator(schema).is_valid(arguments)


def test_the_schema_explains_itself(schema: dict[str, Any]) -> None:
    """Descriptions and defaults are for forms."""
    assert schema["properties"]["rows"]["description"] == "How many rows"
    assert schema["properties"]["kind"]["default"] == "a"
    Draft202012Validator.check_schema(schema)


def test_the_description_is_the_first_paragraph(app: Celery) -> None:
    """In one line."""
    shown = entry(app.task(offered, shared=False, name="offered"))
    assert (shown["task"], shown["description"]) == ("offered", "Do what is offered.")


def test_the_queue_is_the_one_that_the_task_goes_to(app: Celery) -> None:
    """By its route, else the default one: a hub that sends by name does not know the worker's configuration."""
    app.conf.task_default_queue = "normal"
    app.conf.task_routes = {"slow.*": {"queue": "slow"}}
    assert entry(app.task(offered, shared=False, name="offered"))["queue"] == "normal"
    assert entry(app.task(offered, shared=False, name="slow.offered"))["queue"] == "slow"


def test_self_is_no_argument(app: Celery) -> None:
    """Of a bound task."""

    def bound(self: Any, rows: int) -> None: ...

    assert entry(app.task(bound, shared=False, name="bound", bind=True))["schema"]["required"] == ["rows"]


def test_a_retrying_task_has_its_own_arguments(app: Celery) -> None:
    """Celery wraps the body of a task with `autoretry_for`."""
    task = app.task(offered, shared=False, name="offered", autoretry_for=(OSError,), max_retries=1)
    assert entry(task)["schema"]["required"] == ["rows"]


class Point(msgspec.Struct):
    """A structure."""

    x: int


def test_a_structure_is_described_in_place(app: Celery) -> None:
    """Its definition comes with the schema."""

    def draw(point: Point) -> None: ...

    schema = entry(app.task(draw, shared=False, name="draw"))["schema"]
    assert Draft202012Validator(schema).is_valid({"point": {"x": 1}})
    assert not Draft202012Validator(schema).is_valid({"point": {"x": "1"}})


def _starred(*args: int) -> None: ...
def _double_starred(**options: int) -> None: ...
def _foreign(thing: Celery) -> None: ...


@pytest.mark.parametrize("body", [_starred, _double_starred, _foreign])
def test_what_has_no_schema_cannot_be_described(app: Celery, body: Callable[..., None]) -> None:
    """The error names the reason."""
    with pytest.raises(TypeError, match=r"has no schema|not supported|unsupported"):
        entry(app.task(body, shared=False, name="x"))


def test_only_what_asks_for_it_is_in_the_catalogue(app: Celery) -> None:
    """`catalogue=True` on the task."""
    app.task(offered, shared=False, name="in", catalogue=True)
    app.task(offered, shared=False, name="out")
    assert entries(app).keys() == {"in"}


def test_one_bad_task_does_not_hide_the_others(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """It is left out, and the log says why."""
    app.task(offered, shared=False, name="good", catalogue=True)
    app.task(_starred, shared=False, name="bad", catalogue=True)
    assert entries(app).keys() == {"good"}
    assert "task bad is not in the catalogue" in caplog.text


def test_a_worker_announces_its_catalogue(worker: Worker) -> None:
    """In the store, when it is ready."""
    deadline = time.monotonic() + 10
    while not (found := worker.client.hget(keys.CATALOGUE, "tests.headway.celery.sample_app.offered")):
        assert time.monotonic() < deadline
    announced = json.loads(found)
    assert announced["description"] == "Do what is offered."
    assert announced["schema"]["properties"]["rows"]["minimum"] == 1

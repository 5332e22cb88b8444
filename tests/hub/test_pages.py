"""The pages as the server renders them: true, readable with scripts off, and safe with anybody's data in them."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
import redis
from starlette.applications import Starlette

from headway.storage import Storage
from headway.store import Record
from hub import pages
from hub.models import Job

NOW = 1763650000.0
EVIL = '<script>alert("x")</script>'


class Hub:
    """The app with the pages; it is its own services, of which the pages use three."""

    def __init__(self, storage: Storage) -> None:
        self.tasks: dict[str, dict[str, bytes]] = {}
        self.rows: list[Job] = []
        self.jobs = SimpleNamespace(recent=self.recent)
        self.storage = storage
        self.app = Starlette(routes=pages.routes)
        self.store = SimpleNamespace(details=self.details)
        self.app.state.services = self

    async def recent(self, limit: int) -> list[Job]:
        return self.rows[:limit]

    async def details(self, task_id: str) -> Record | None:
        fields = self.tasks.get(task_id)
        return None if fields is None else Record("1763650000000-7", fields, [])

    def submit(self, task_id: str, state: str = "PROGRESS", *, file: str = "airports.csv", **event: Any) -> None:
        """A job with a file of this name, and what the store knows of it."""
        with self.storage.create(file) as out:
            out.write(b"a,b\n1,2\n")
        args = {"file": out.ref}
        created = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
        self.rows.insert(0, Job(task_id=task_id, task="import_csv", args=args, queue="celery", created_at=created))
        amounts = {"current": 0, "total": None, "unit": None, "stage": None, "percent": None, "message": None}
        rest = {"attempt": 1, "state": state, **amounts, "rate": None, "eta": None, "stalled": False, "ts": NOW + 3}
        self.tasks[task_id] = {
            "epoch": b"1763650000000", "seq": b"7", "kept": b"5", "attempt": b"1", "state": state.encode(),
            "rest": msgspec.json.encode(rest | event)[1:-1], "task": b"import_csv", "args": msgspec.json.encode(args),
            "queue": b"celery", "created_at": str(NOW).encode(), "run:1:started_at": str(NOW + 1).encode(),
        }  # fmt: skip

    async def get(self, path: str) -> httpx.Response:
        """What a browser gets."""
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
            return await client.get(path)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """No jobs yet."""
    return Hub(Storage(tmp_path))


async def test_an_empty_hub_says_what_to_do(hub: Hub) -> None:
    """A list without entries is an invitation, not a blank."""
    page = await hub.get("/")
    assert page.status_code == 200
    assert "No jobs yet" in page.text


async def test_recent_jobs_are_readable_without_scripts(hub: Hub) -> None:
    """File, state, percent, counts, pace: all of it is in the HTML."""
    hub.submit("t1", current=420, total=1000, unit="rows", percent=42.0, rate=812.3, eta=0.71, message="importing rows")
    page = (await hub.get("/")).text
    for words in ("airports.csv", "PROGRESS", "42.0%", "420 of 1,000 rows", "812 rows/s", "importing rows"):
        assert words in page
    assert 'aria-valuenow="42.0"' in page
    assert 'href="/jobs/t1"' in page


async def test_an_unknown_total_has_no_value(hub: Hub) -> None:
    """A bar nobody knows the length of is indeterminate: no aria-valuenow, no percent."""
    hub.submit("t1", current=77, unit="files")
    page = (await hub.get("/jobs/t1")).text
    assert "aria-valuenow" not in page
    assert "77 files" in page


async def test_the_job_in_the_address_is_on_top_and_only_there(hub: Hub) -> None:
    """A reload shows the running job again, once."""
    hub.submit("t1")
    hub.submit("t2")
    page = (await hub.get("/?job=t1")).text
    assert page.index('data-task-id="t1"') < page.index('data-task-id="t2"')
    assert page.count('data-task-id="t1"') == 1


async def test_an_unknown_job_in_the_address_is_told(hub: Hub) -> None:
    """Not shown as if it were waiting."""
    page = await hub.get("/?job=gone")
    assert page.status_code == 200
    assert "There is no job gone" in page.text


async def test_an_unknown_job_has_no_page(hub: Hub) -> None:
    """404, as HTML."""
    page = await hub.get("/jobs/gone")
    assert page.status_code == 404
    assert "No such job" in page.text


async def test_a_job_the_store_has_forgotten_is_told(hub: Hub) -> None:
    """The row is history, its state is not known: neither PENDING nor any other state is made up."""
    hub.submit("t1")
    hub.tasks.clear()
    page = (await hub.get("/")).text
    assert "EXPIRED" in page
    assert "PENDING" not in page


async def test_a_result_is_shown_with_its_downloads(hub: Hub) -> None:
    """A claim check in a result becomes a link."""
    link = {"ref": "f_0", "name": "airports.rejects.csv", "size": 1824, "href": "/files/f_0"}
    hub.submit("t1", "SUCCESS", result={"table": "import_airports", "rows": 3376, "rejects": link})
    page = (await hub.get("/jobs/t1")).text
    assert '<a href="/files/f_0" download="airports.rejects.csv">airports.rejects.csv</a> (1.8 kB)' in page
    assert "3,376" in page
    assert "100%" in page


async def test_nothing_is_no_row_of_a_result(hub: Hub) -> None:
    """What a task has not found is left out, and an empty list of rows with it."""
    hub.submit("t1", "SUCCESS", result={"rows": 3, "rejects": None})
    hub.submit("t2", "SUCCESS", result={"rejects": None})
    page = (await hub.get("/jobs/t1")).text
    assert "<dt>rows</dt>" in page
    assert "rejects" not in page
    assert "<dl>" not in (await hub.get("/jobs/t2")).text


async def test_times_are_utc_until_a_script_has_been_here(hub: Hub) -> None:
    """Readable with scripts off; the class is what hides them from those who will see their own time."""
    hub.submit("t1")
    page = (await hub.get("/jobs/t1")).text
    assert re.findall(r'<time class="utc" datetime="[^"]+">20 Nov 2025, 14:46 UTC</time>', page)
    assert page.count("<time") == page.count('<time class="utc"')


@pytest.mark.parametrize("href", ["//evil.example/x", "javascript:alert(1)", "https://evil.example/"])
async def test_a_result_cannot_link_elsewhere(hub: Hub, href: str) -> None:
    """A task's result is data: only paths of this hub become links."""
    hub.submit("t1", "SUCCESS", result={"file": {"name": "x", "href": href}})
    assert f'href="{href}' not in (await hub.get("/jobs/t1")).text


async def test_an_error_is_shown(hub: Hub) -> None:
    """Type and message, as the task raised them."""
    hub.submit("t1", "FAILURE", error={"type": "ValueError", "message": "line 3", "fingerprint": "f"})
    assert "ValueError: line 3" in (await hub.get("/jobs/t1")).text


async def test_an_error_links_the_file_it_names(hub: Hub) -> None:
    """The rows an import has rejected are a click away."""
    path = f"/files/f_{'0' * 32}"
    error = {"type": "TooManyRejects", "message": f"all of them are in {path}.", "fingerprint": "f"}
    hub.submit("t1", "FAILURE", error=error)
    assert f'all of them are in <a href="{path}" download>{path}</a>.</p>' in (await hub.get("/jobs/t1")).text


async def test_a_silent_worker_is_told(hub: Hub) -> None:
    """stalled is not a state of its own, so the page says it in words."""
    hub.submit("t1", stalled=True)
    assert "The worker has gone silent" in (await hub.get("/jobs/t1")).text


@pytest.mark.parametrize("path", ["/", "/jobs/t1", f"/?job={EVIL}", f"/jobs/{EVIL}"])
async def test_data_is_never_markup(hub: Hub, path: str) -> None:
    """Messages, file names, results and what is in the address are text."""
    error = {"type": EVIL, "message": EVIL, "fingerprint": "f"}
    hub.submit("t1", "FAILURE", message=EVIL, unit=EVIL, stage=EVIL, result={EVIL: EVIL}, error=error, file=EVIL)
    assert "<script>alert" not in (await hub.get(path)).text


@pytest.mark.parametrize("path", ["/", "/?job=t1", "/jobs/t1", "/jobs/gone"])
async def test_pages_live_under_a_strict_policy(hub: Hub, path: str) -> None:
    """default-src 'self': no inline script, style or handler, and nothing from elsewhere."""
    hub.submit("t1")
    page = (await hub.get(path)).text
    assert "<style" not in page
    assert not re.search(r"<[^>]*\s(style|on\w+)=", page)
    assert not re.search(r"<script(?![^>]*\ssrc=\"/static/)", page)
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


async def test_nothing_a_page_asks_for_is_missing(hub: Hub) -> None:
    """Scripts with all their imports, style sheet, icons: no 404 in anybody's console."""
    hub.submit("t1")
    wanted = ["/favicon.ico"]
    for path in ("/", "/jobs/t1"):
        wanted += re.findall(r'(?:src|href)="(/static/[^"]+)"', (await hub.get(path)).text)
    for path in wanted:
        answer = await hub.get(path)
        assert answer.status_code == 200, path
        if path.endswith(".js"):
            wanted += [f"/static/{name}" for name in re.findall(r'from "\./(.+?)"', answer.text)
                       if f"/static/{name}" not in wanted]  # fmt: skip


@pytest.mark.parametrize("error", [redis.ConnectionError("away"), ConnectionRefusedError("away"), TimeoutError()])
async def test_an_outage_is_a_page_that_tries_again(hub: Hub, error: Exception) -> None:
    """503, in words for people, and the browser comes back by itself."""

    async def details(_: str) -> None:
        raise error

    hub.store = SimpleNamespace(details=details)
    page = await hub.get("/jobs/t1")
    assert page.status_code == 503
    assert 'http-equiv="refresh"' in page.text


async def test_scripts_never_write_markup() -> None:
    """What comes from the hub is put into the page as text, in every module."""
    for module in Path(pages.__file__).parent.parent.joinpath("static").glob("*.js"):
        source = module.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source), module.name

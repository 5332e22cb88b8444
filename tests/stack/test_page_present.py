"""What a page says about now stays true while nobody reloads it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.async_api import Page, Route, WebSocketRoute, expect

from tests.stack.browsing import WAIT, start

pytestmark = [pytest.mark.stack, pytest.mark.browser]

QUIET = re.compile("^last heard [0-9]+ s ago$")


async def test_the_runtime_goes_on(page: Page, url: str) -> None:
    """Also between two events, and for a reader whose clock stands at another century."""
    job = await start(url, steps=2, seconds=30)
    await page.clock.install(time="1926-01-01")
    await page.goto(f"/jobs/{job}")
    await expect(page.locator(".job")).to_have_attribute("data-state", "PROGRESS", timeout=WAIT)
    runtime = page.locator("[data-fact=runtime] dd")
    await expect(runtime).to_have_text(re.compile("^[1-9] s$"))
    await page.clock.fast_forward(60_000)
    await expect(runtime).to_have_text(re.compile("^1 min 0[1-9] s$"))


async def test_attempts_are_live(page: Page, url: str) -> None:
    """From the events, on a page that is opened before the first attempt ends."""
    job = await start(url, steps=20, seconds=2, fail_at=10, fail_times=1)
    await page.goto(f"/jobs/{job}")
    attempts = page.locator("[data-fact=attempts] dd")
    await expect(attempts).to_have_text("1 running")
    await expect(attempts).to_have_text("1 RETRY, 2 running", timeout=WAIT)
    await expect(attempts).to_have_text("1 RETRY, 2 SUCCESS", timeout=WAIT)


async def test_a_quiet_job_has_no_pace(page: Page, url: str) -> None:
    """Rate and time left were those of a while ago; the next event brings its own."""
    job = await start(url, steps=2, seconds=8)
    await page.clock.install()
    await page.goto(f"/?job={job}")
    shown = page.locator("[data-focus] .job")
    await expect(shown).to_have_attribute("data-state", "PROGRESS", timeout=WAIT)
    pace = shown.locator("[data-part=pace]")
    await page.clock.fast_forward(6_000)
    await expect(pace).to_have_text(QUIET)
    await expect(pace).to_have_text(re.compile("left$"), timeout=WAIT)


def told(cursor: str, seq: int, prev: int, **members: Any) -> str:
    """An event of a job that has been going on for a while."""
    amounts = {"current": seq, "total": 100, "unit": "steps", "percent": float(seq), "stage": None, "message": "now"}
    rest = {"attempt": 2, "state": "PROGRESS", "rate": 5.0, "eta": 9.0, "stalled": False, "ts": 1763650000.0}
    place = {"v": 1, "task_id": "t", "cursor": f"{cursor.partition('-')[0]}-{seq}", "seq": seq, "prev": prev}
    return json.dumps(amounts | rest | place | members)


async def test_what_was_missed_does_not_bring_back_the_past(page: Page, url: str) -> None:
    """The snapshot comes first and is newer: bar, words, title and details stay, the log gets its lines."""

    def hub(route: WebSocketRoute) -> None:
        cursor = route.url.partition("cursor=")[2]
        route.send(told(cursor, 42, 3, type="snapshot", recovered=True))
        past = {"attempt": 1, "percent": 1.0, "current": 1, "message": "then"}
        route.send(told(cursor, 1, 0, type="state", **past | {"state": "STARTED"}))
        route.send(told(cursor, 2, 1, type="log", level="info", **past | {"message": "a line"}))
        route.send(told(cursor, 3, 2, type="state", **past | {"state": "RETRY", "reason": "no luck"}))

    await page.route_web_socket("**/ws/task/*", hub)
    await page.goto(f"/jobs/{await start(url, steps=2, seconds=20)}")
    await expect(page.locator("#log li")).to_have_count(3)
    job = page.locator(".job")
    await expect(job).to_have_attribute("data-state", "PROGRESS")
    await expect(job.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "42.0")
    await expect(job.locator("[data-part=message]")).to_have_text("now")
    await expect(job.locator("[data-part=attempt]")).to_have_text("attempt 2")
    await expect(job.locator("[data-part=note]")).to_be_hidden()
    await expect(page).to_have_title(re.compile("^42.0% "))


async def test_without_a_connection_nothing_was_last_heard(page: Page, url: str) -> None:
    """The job may be talking: it is the page that does not hear."""
    connections: list[WebSocketRoute] = []

    def once(route: WebSocketRoute) -> None:
        connections.append(route)
        if len(connections) == 1:
            route.connect_to_server()

    await page.clock.install()
    await page.route_web_socket("**/ws/task/*", once)
    await page.goto(f"/?job={await start(url, steps=2, seconds=20)}")
    shown = page.locator("[data-focus] .job")
    await expect(shown).to_have_attribute("data-state", "PROGRESS", timeout=WAIT)
    await connections[0].close(code=1012)
    await expect(shown.locator(".state")).to_have_text("reconnecting…")
    await page.clock.fast_forward(6_000)
    await expect(shown.locator(".state")).to_have_text("reconnecting…")
    await expect(shown.locator("[data-part=pace]")).to_have_text("")


async def test_times_do_not_change_before_the_readers_eyes(page: Page, url: str) -> None:
    """Hidden until they are local; but a script that never comes must not hide them for good."""

    async def lose(route: Route) -> None:
        await route.abort()

    await page.route("**/static/job.js", lose)
    await page.goto(f"/jobs/{await start(url, steps=1, seconds=0)}")
    time = page.locator(".job time")
    assert await time.evaluate("time => getComputedStyle(time).animationName") == "appear"
    await expect(time).to_be_visible()
    await expect(time).to_contain_text("UTC")
    await page.unroute("**/static/job.js")
    await page.reload()
    await expect(time).to_be_visible()
    await expect(page.locator("time.utc")).to_have_count(0)


async def test_the_catalogue_is_a_page(page: Page) -> None:
    """From the navigation; every task with its command."""
    await page.goto("/")
    await page.get_by_role("link", name="Catalogue").click()
    await expect(page.get_by_role("heading", name="simulate")).to_be_visible()
    await expect(page.locator("pre", has_text='"task": "simulate"')).to_be_visible()

"""The pages in headless Chromium, on a real stack: what people see is where the job stands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Route,
    WebSocketRoute,
    async_playwright,
    expect,
)

from deploy.samples import csv_files
from tests.deploy.stacks import UpProcess

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# A browser that looks for updates and speaks QUIC does things that are no part of a test.
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WAIT = 20_000  # ms

pytestmark = [
    pytest.mark.stack,
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"),
        reason="no Chromium on this machine: THE PAGES ARE NOT TESTED (apt install chromium)",
    ),
]


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium. Without one, and with CI set, the tests fail here."""
    assert CHROMIUM is not None, "CI is set and there is no Chromium: the pages must not go untested"
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        await chromium.close()


@pytest.fixture
async def context(browser: Browser, url: str) -> AsyncIterator[BrowserContext]:
    """A profile of the test's own."""
    fresh = await browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
    fresh.set_default_timeout(WAIT)
    yield fresh
    await fresh.close()


@pytest.fixture
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A tab in which nothing may go wrong: no error in the console, no exception, no missing file."""
    errors: list[str] = []
    tab = await context.new_page()

    def heard(message: ConsoleMessage) -> None:
        # Chromium's own line about an answer of 400 and more: which of them are wrong is looked at below.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            errors.append(message.text)

    tab.on("console", heard)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("response", lambda response: errors.append(response.url) if response.status in (404, 500) else None)
    yield tab
    assert errors == []


async def start(url: str, **args: Any) -> str:
    """Start `simulate`; the task's id."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        response = await client.post("/tasks", json={"task": "simulate", "args": args})
        assert response.status_code == 202, response.text
        return str(response.json()["task_id"])


def many_rows(folder: Path) -> Path:
    """A real file, repeated until its import takes a few seconds."""
    header, body = csv_files()["airports.csv"].read_bytes().split(b"\n", 1)
    path = folder / "airports many.csv"
    path.write_bytes(header + b"\n" + body.rstrip(b"\n") + b"\n" + (body.rstrip(b"\n") + b"\n") * 100)
    return path


async def until_moving(page: Page) -> float:
    """Wait until the bar is somewhere in the middle; what it says, in percent."""
    value = "Number(document.querySelector('[data-focus] .bar').getAttribute('aria-valuenow'))"
    moving = await page.wait_for_function(f"() => {value} > 5 && {value}", timeout=WAIT)
    return float(await moving.json_value())


async def test_a_file_becomes_a_table(page: Page) -> None:
    """Choose a file, press the button, watch the bar, read the result."""
    await page.goto("/")
    await page.set_input_files("#file", csv_files()["airports.csv"])
    await page.get_by_role("button", name="Import").click()
    await page.wait_for_url("**/?job=*")
    job = page.locator("[data-focus] .job")
    await expect(job).to_have_attribute("data-state", "SUCCESS", timeout=WAIT)
    await expect(job.get_by_role("heading")).to_have_text("airports.csv")
    await expect(job.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile(r"^100"))
    await expect(job.locator(".ending")).to_contain_text("3,376")


async def test_a_reload_in_the_middle_goes_on(page: Page, tmp_path: Path) -> None:
    """The running import is in the address: the bar is there again, no further back, and reaches the end."""
    await page.goto("/")
    await page.set_input_files("#file", many_rows(tmp_path))
    await page.get_by_role("button", name="Import").click()
    await page.wait_for_url("**/?job=*")
    before = await until_moving(page)
    await page.reload()
    assert await until_moving(page) >= before
    job = page.locator("[data-focus] .job")
    await expect(job).to_have_attribute("data-state", "SUCCESS", timeout=WAIT)
    await expect(job.locator(".ending")).to_contain_text(f"{3376 * 101:,}")


async def test_a_recent_job_is_live_too(page: Page, url: str) -> None:
    """Every unfinished job of the list moves, all of them over one socket."""
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    jobs = [await start(url, steps=40, seconds=2) for _ in range(2)]
    await page.goto("/")
    for job in jobs:
        await expect(page.locator(f'[data-task-id="{job}"]')).to_have_attribute("data-state", "SUCCESS", timeout=WAIT)
    assert [address.rpartition("/")[2] for address in sockets] == ["ws"]


async def test_a_killed_hub_is_told_and_survived(page: Page, url: str, stack: UpProcess) -> None:
    """The page says that it has no connection, comes back by itself, and sees the end."""
    job = await start(url, steps=80, seconds=8)
    await page.goto(f"/?job={job}")
    await until_moving(page)
    hub = next(process for process in stack.relatives() if "hub" in process.cmdline() and "-m" in process.cmdline())
    hub.kill()
    shown = page.locator("[data-focus] .job")
    await expect(shown.locator(".state")).to_have_text("reconnecting…", timeout=WAIT)
    await expect(shown.locator(".state")).to_have_text("PROGRESS", timeout=WAIT)
    await expect(shown).to_have_attribute("data-state", "SUCCESS", timeout=WAIT)


async def test_a_lost_event_is_noticed_and_fetched(page: Page, url: str) -> None:
    """The network swallows the RETRY: the next event gives it away, and a reconnect with the cursor brings it."""
    connections: list[str] = []

    def tamper(route: WebSocketRoute) -> None:
        connections.append(route.url)
        server = route.connect_to_server()
        server.on_message(
            lambda message: (
                None if len(connections) == 1 and json.loads(message)["state"] == "RETRY" else route.send(message)
            )
        )

    await page.route_web_socket("**/ws/task/*", tamper)
    job = await start(url, steps=30, seconds=1.5, fail_at=20, fail_times=1)
    await page.goto(f"/jobs/{job}")
    await expect(page.locator(".job")).to_have_attribute("data-state", "SUCCESS", timeout=WAIT)
    await expect(page.locator("#log")).to_contain_text("RETRY")
    assert "cursor=" in connections[-1]
    assert len(connections) == 2


class QuietWire:
    """Lets only some types of message through the first connection of a page."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.connections = 0
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, route: WebSocketRoute) -> None:
        self.connections += 1
        first = self.connections == 1

        def passing(message: str | bytes) -> None:
            kind = json.loads(message)["type"]
            if not first or kind in self.allowed:
                route.send(message)
                self.heard.put_nowait(kind)

        route.connect_to_server().on_message(passing)

    async def until(self, kind: str) -> None:
        """Wait for a message of this type."""
        async with asyncio.timeout(WAIT / 1000):
            while await self.heard.get() != kind:
                pass


async def test_a_half_open_connection_is_replaced(page: Page, url: str) -> None:
    """Silence, and no answer to a ping: the page does not go on showing what it heard last."""
    wire = QuietWire("snapshot")
    await page.clock.install()
    await page.route_web_socket("**/ws/task/*", wire)
    await page.goto(f"/?job={await start(url, steps=20, seconds=2)}")
    await wire.until("snapshot")
    await page.clock.fast_forward(20_500)
    await page.clock.fast_forward(8_500)
    await expect(page.locator("[data-focus] .job")).to_have_attribute("data-state", "SUCCESS", timeout=WAIT)
    assert wire.connections == 2


async def test_a_silent_task_is_not_taken_for_a_dead_connection(page: Page, url: str) -> None:
    """The hub answers the ping, so the connection stays."""
    wire = QuietWire("snapshot", "pong")
    await page.clock.install()
    await page.route_web_socket("**/ws/task/*", wire)
    await page.goto(f"/?job={await start(url, steps=20, seconds=2)}")
    await wire.until("snapshot")
    await page.clock.fast_forward(20_500)
    await wire.until("pong")
    await page.clock.fast_forward(8_500)
    await expect(page.locator("[data-focus] .state")).not_to_have_text("reconnecting…")
    assert wire.connections == 1


async def test_an_attempt_that_begins_again_is_shown(page: Page, url: str) -> None:
    """A retried job says so, and its page has the whole story however late it is opened."""
    job = await start(url, steps=4, seconds=0.2, fail_at=2, fail_times=1)
    await page.goto(f"/?job={job}")
    await expect(page.locator("[data-focus] .job")).to_have_attribute("data-state", "SUCCESS", timeout=WAIT)
    await page.goto(f"/jobs/{job}")
    await expect(page.locator("#log")).to_contain_text("SUCCESS")
    log = " ".join(await page.locator("#log li").all_inner_texts())
    assert re.findall("PENDING|STARTED|RETRY|SUCCESS", log) == ["PENDING", "STARTED", "RETRY", "STARTED", "SUCCESS"]


async def test_a_failure_is_shown(page: Page, url: str) -> None:
    """Type and message of the error, live and after a reload."""
    job = await start(url, steps=10, seconds=0.5, fail_at=5)
    await page.goto(f"/?job={job}")
    shown = page.locator("[data-focus] .job")
    await expect(shown.locator(".error")).to_contain_text("SimulatedFailure: Step 5 failed", timeout=WAIT)
    await page.reload()
    await expect(shown.locator(".error")).to_contain_text("SimulatedFailure: Step 5 failed")


async def test_a_refused_upload_says_why(page: Page) -> None:
    """The hub's own words (`detail` of the problem), and the form is ready for the next try."""
    problem = {"title": "Insufficient Storage", "status": 507, "detail": "The disk is full; nothing was kept."}

    async def refuse(route: Route) -> None:
        await route.fulfill(status=422, content_type="application/problem+json", body=json.dumps(problem))

    await page.route("**/uploads", refuse)
    await page.goto("/")
    await page.set_input_files("#file", csv_files()["airports.csv"])
    await page.get_by_role("button", name="Import").click()
    await expect(page.get_by_role("alert")).to_have_text(problem["detail"])
    await expect(page.get_by_role("button", name="Import")).to_be_enabled()


@pytest.mark.parametrize("width", [320, 390, 1280, 2560])
async def test_pages_fit_any_screen(page: Page, url: str, width: int) -> None:
    """No sideways scrolling, from a small phone to a wide screen."""
    job = await start(url, steps=1, seconds=0, message="x" * 300)
    await page.set_viewport_size({"width": width, "height": 900})
    for path in (f"/?job={job}", f"/jobs/{job}"):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width

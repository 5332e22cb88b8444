"""The pages in headless Chromium, on a real stack: what people see is where the job stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from deploy.samples import csv_files
from tests.stack.browsing import WAIT, start, until_moving

pytestmark = [pytest.mark.stack, pytest.mark.browser]


def many_rows(folder: Path) -> Path:
    """A real file, repeated until its import takes a few seconds."""
    header, body = csv_files()["airports.csv"].read_bytes().split(b"\n", 1)
    path = folder / "airports many.csv"
    path.write_bytes(header + b"\n" + body.rstrip(b"\n") + b"\n" + (body.rstrip(b"\n") + b"\n") * 100)
    return path


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
    for path in (f"/?job={job}", f"/jobs/{job}", "/catalogue"):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width

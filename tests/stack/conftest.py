"""One whole stack for the tests that look at it from outside, and a browser to look with."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from deploy.server import free_port
from tests.deploy.stacks import UpProcess
from tests.stack.browsing import WAIT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# A browser that looks for updates and speaks QUIC does things that are no part of a test.
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    """A stack that is ready; leave it running."""
    folder = tmp_path_factory.mktemp("stack")
    up = UpProcess(folder / "state", free_port(), folder / "output", "--workers", "2")
    try:
        up.ready()
        yield up
    finally:
        up.end()


@pytest.fixture(scope="session")
def url(stack: UpProcess) -> str:
    """The address of its hub."""
    return f"http://127.0.0.1:{stack.port}"


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI is set and there is no Chromium: the pages must not go untested")
        pytest.skip("no Chromium on this machine: THE PAGES ARE NOT TESTED (apt install chromium)")
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

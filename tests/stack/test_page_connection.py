"""The page's connection on a network, and to a hub, that fail it."""

from __future__ import annotations

import asyncio
import json

import pytest
from playwright.async_api import Page, WebSocketRoute, expect

from tests.deploy.stacks import UpProcess
from tests.stack.browsing import WAIT, start, until_moving

pytestmark = [pytest.mark.stack, pytest.mark.browser]


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

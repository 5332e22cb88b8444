"""What tests of the pages do again and again."""

from __future__ import annotations

from typing import Any

import httpx
from playwright.async_api import Page

WAIT = 20_000  # ms


async def start(url: str, **args: Any) -> str:
    """Start `simulate`; the task's id."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        response = await client.post("/tasks", json={"task": "simulate", "args": args})
        assert response.status_code == 202, response.text
        return str(response.json()["task_id"])


async def until_moving(page: Page) -> float:
    """Wait until the bar is somewhere in the middle; what it says, in percent."""
    value = "Number(document.querySelector('[data-focus] .bar').getAttribute('aria-valuenow'))"
    moving = await page.wait_for_function(f"() => {value} > 5 && {value}", timeout=WAIT)
    return float(await moving.json_value())

"""Celery integration: one line makes an app publish each state change of its tasks, and `Progress` work inside them.

    from headway.celery import install
    install(app)

This is the only part of `headway` that needs Celery.
"""

from __future__ import annotations

from celery import Celery
from celery.app.backends import BACKEND_ALIASES

from headway.celery import signals
from headway.celery.claims import ClaimStep
from headway.celery.integration import Integration, mark_sending, register
from headway.run import HZ

__all__ = ["install"]


def install(app: Celery, url: str | None = None, *, hz: float = HZ) -> None:
    """Make `app` publish; call it once, before the app is used.

    `url` names the Redis of the progress store; by default HEADWAY_REDIS_URL, else the app's result backend or
    broker, where that is a Redis. `hz` bounds the progress events a second of one task. The result backend stays
    what it is and keeps its data: it only learns to publish (`headway.celery.backend`). Raises `ValueError` if hz
    is not above 0.
    """
    if not hz > 0:
        raise ValueError(f"hz must be above 0, not {hz!r}")
    headway = Integration(app, url, hz)
    register(app, headway)
    mark_sending(app, headway)
    # The loader resolves a backend's scheme, through this table, when the app first needs it: so the configuration
    # may still change after install(), and the URL is kept.
    app.loader.override_backends = {alias: f"headway.celery.backend:{alias}" for alias in BACKEND_ALIASES}
    app.steps["worker"].add(ClaimStep)
    signals.connect()

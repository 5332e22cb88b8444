"""How fast a hub answers `/healthz` while it does something else."""

from __future__ import annotations

import http.client
import threading
import time

INTERVAL = 0.02
"""Seconds between two questions."""


class Probe:
    """Asks again and again while it is entered, from a thread and on one kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._times: list[float] = []

    def __enter__(self) -> Probe:
        self._connection.connect()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._connection.close()

    @property
    def longest(self) -> float:
        """Seconds of the slowest answer."""
        return max(self._times)

    def percentile(self, share: float) -> float:
        """Seconds within which this share (0 to 1) of the answers came."""
        return sorted(self._times)[min(len(self._times) - 1, int(share * len(self._times)))]

    def _ask(self) -> None:
        while not self._times or not self._over.wait(INTERVAL):
            began = time.perf_counter()
            self._connection.request("GET", "/healthz")
            self._connection.getresponse().read()
            self._times.append(time.perf_counter() - began)

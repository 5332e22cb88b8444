"""How long a hub takes to say that it is there: what everybody feels when its loop stands still."""

from __future__ import annotations

import http.client
import threading
import time

PAUSE = 0.01
"""Seconds between two questions."""


class Pulse(threading.Thread):
    """Asks for `/healthz` again and again, from `with` to its end."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.times: list[float] = []
        """Seconds of each answer."""
        self.error: Exception | None = None
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._stop_asked = threading.Event()

    def __enter__(self) -> Pulse:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join()
        self._connection.close()
        if self.error is not None:
            raise self.error

    @property
    def worst(self) -> float:
        """The longest answer, in seconds."""
        return max(self.times)

    @property
    def usual(self) -> float:
        """The longest but for one in twenty, which may be the doing of the machine: in seconds."""
        return sorted(self.times)[len(self.times) * 19 // 20]

    def run(self) -> None:
        """In the thread."""
        try:
            while not self._stop_asked.wait(PAUSE):
                began = time.perf_counter()
                self._connection.request("GET", "/healthz")
                with self._connection.getresponse() as answer:
                    assert answer.status == 200
                    answer.read()
                self.times.append(time.perf_counter() - began)
        except Exception as error:
            self.error = error

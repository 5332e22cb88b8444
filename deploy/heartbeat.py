"""The heartbeat of a worker in a container, for `deploy.healthcheck`: `celery … worker --include deploy.heartbeat`.

Celery gives this signal every 2 s from the worker's own main loop, and only while it is connected to the broker. To
write the time down then is an honest sign of life that costs nothing; `celery inspect ping` would start a Python with
all of Celery in it for each answer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery.signals import heartbeat_sent

_file = Path(os.environ["HEADWAY_HEARTBEAT"])


def _beat(**_: Any) -> None:
    _file.touch()


heartbeat_sent.connect(_beat, weak=False)

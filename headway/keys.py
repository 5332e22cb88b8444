"""Every key and channel name of the store.

All keys of a task share the hash tag of its partition, so that one script may touch them together on a cluster, and so
that sharded channels spread over its nodes.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

PARTITIONS = 64
"""How many partitions there are. Part of the contract: every process must compute the same one."""

CATALOGUE = "hw:{catalogue}"
"""Hash: task name → JSON of its catalogue entry, announced by the workers that serve it."""
ANNOUNCED = "hw:{catalogue}:announced"
"""Hash: task name → when a worker last announced it, in Unix seconds."""


def partition(task_id: str) -> int:
    """The partition of a task, 0 to 63."""
    return zlib.crc32(task_id.encode()) % PARTITIONS


class TaskKeys(NamedTuple):
    """The keys of one task; the first five in the order in which `publish` takes them."""

    task: str
    """Hash: position, newest state and what the task resource shows."""
    replay: str
    """Stream: the recent `state` and `log` events, entry id `<seq>-0`."""
    journal: str
    """Stream of the partition: every `state` and `log` event, for the recorder."""
    channel: str
    """Sharded channel: every event of the task."""
    feed: str
    """Sharded channel of the partition: every change of state."""
    children: str
    """List: ids of the tasks that this one has sent."""


def of(task_id: str) -> TaskKeys:
    """The keys of a task."""
    tag = f"hw:{{p{partition(task_id):02d}}}"
    return TaskKeys(
        f"{tag}:task:{task_id}",
        f"{tag}:replay:{task_id}",
        f"{tag}:journal",
        f"{tag}:events:{task_id}",
        f"{tag}:feed",
        f"{tag}:children:{task_id}",
    )


def feeds() -> list[str]:
    """The feed channels of all partitions."""
    return [f"hw:{{p{number:02d}}}:feed" for number in range(PARTITIONS)]

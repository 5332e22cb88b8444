"""A task that never stops talking: `python -m tests.faults.flood URL TASK RATE SECONDS`, as fast as Valkey takes it.

RATE events a second, of which every 1,000th is a log line by the store's own script; the progress between them is made
here, since one script a call is slower than what a hub has to bear. Chain, hash and stream are what they would be.
"""

from __future__ import annotations

import hashlib
import sys
import time

import redis

from headway import keys
from headway.events import Envelope, State
from headway.store import KEEP, source
from tests.hub.envelopes import payload_of

BATCH = 1_000


def main(url: str, task_id: str, rate: str, seconds: str) -> None:
    """See the module docstring; the task must have started."""
    names, batches = keys.of(task_id), int(rate) * int(seconds) // BATCH
    with redis.Redis.from_url(url) as client:
        publish = client.script_load(source("publish"))
        assert publish == hashlib.sha1(source("publish").encode(), usedforsecurity=False).hexdigest()
        epoch, seq, kept = (int(value) for value in client.hmget(names.task, "epoch", "seq", "kept"))
        began = time.monotonic()
        with client.pipeline(transaction=False) as pipeline:
            for batch in range(batches):
                # Ahead of the batch: a reader in the middle of it is told where the batch ends, never what is old.
                pipeline.hset(names.task, "seq", seq + BATCH - 1)
                for _ in range(BATCH - 1):
                    seq += 1
                    pipeline.execute_command("SPUBLISH", names.channel, _progress(task_id, epoch, seq, kept))
                pipeline.evalsha(publish, 5, *names[:5], *_line(task_id, batch))
                seq = kept = seq + 1
                pipeline.execute()
                time.sleep(max(0.0, began + (batch + 1) * BATCH / int(rate) - time.monotonic()))
    sys.stdout.write(f"{batches} {batches * BATCH / (time.monotonic() - began):.0f}\n")


def _progress(task_id: str, epoch: int, seq: int, kept: int) -> bytes:
    event = (
        f'{{"v":1,"type":"progress","task_id":"{task_id}","cursor":"{epoch}-{seq}","seq":{seq},"prev":{kept},'
        f'"attempt":1,"state":"PROGRESS","current":{seq},"total":null,"unit":"rows","stage":null,"percent":null,'
        f'"message":"importing rows","rate":812.3,"eta":null,"stalled":false,"ts":{time.time():.6f}}}'
    )
    return payload_of(Envelope("p", epoch, seq, kept, event.encode()))


def _line(task_id: str, number: int) -> list[str | int]:
    ts = f"{time.time():.6f}"
    said = ["", "", f'"line {number}"', '"rate":null,"eta":null', ',"level":"info"']
    return [f'"{task_id}"', "log", State.PROGRESS.value, "", "", ts, *said, *KEEP]


if __name__ == "__main__":
    main(*sys.argv[1:])

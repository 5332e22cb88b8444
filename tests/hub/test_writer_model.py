"""The writer, whatever happens in whatever order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hub.message import Message
from tests.hub.envelopes import Clock, Publisher
from tests.hub.writing import CLOSE, Socket, of

moves = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("plst"), st.sampled_from("abc")),
        st.tuples(st.sampled_from(["pause", "resume", "wait"]), st.sampled_from([1, 200, 2_000, 1_000_000])),
        st.tuples(st.just("hz"), st.sampled_from([None, 0.5, 10])),
        st.tuples(st.just("close"), st.just(1000)),
    ),
    max_size=60,
)


@given(moves)
def test_whatever_the_interleaving(steps: list[tuple[str, Any]]) -> None:
    """Kept events complete and in order, each task's newest event last, every message whole, nothing after a close."""
    pushed: dict[str, list[Message]] = defaultdict(list)
    tasks = {name: Publisher(name) for name in "abc"}

    async def work() -> bytes:
        socket = Socket()
        for step, value in steps:
            if step in "plst":
                message = of(tasks[value], step)
                if socket.writer.closed is None:
                    pushed[value].append(message)
                socket.writer.push(message)
            elif step == "pause":
                socket.out.room = value
            elif step == "resume":
                socket.takes(value)
            elif step == "wait":
                await asyncio.sleep(value / 1_000)
            elif step == "hz":
                socket.writer.hz = value
            else:
                socket.writer.close(value, "done")
        socket.takes()
        await asyncio.sleep(5)
        assert (socket.finished is None) == (socket.writer.closed is None)
        socket.writer.gone()
        return socket.sent

    sent = Clock.run(work)
    if any(step == "close" for step, _ in steps):
        assert sent.endswith(CLOSE)
        sent = sent.removesuffix(CLOSE)
    known = {message.frame: message for messages in pushed.values() for message in messages}
    got: dict[str, list[Message]] = defaultdict(list)
    while sent:
        end = 4 + int.from_bytes(sent[2:4], "big")
        message = known[sent[:end]]
        got[message.task_id].append(message)
        sent = sent[end:]
    for name, messages in pushed.items():
        assert [message.seq for message in got[name]] == sorted({message.seq for message in got[name]})
        assert [m for m in got[name] if m.type != "progress"] == [m for m in messages if m.type != "progress"]
        assert got[name][-1:] == messages[-1:]

"""The names of keys and channels: part of the contract between processes of different versions."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway import keys


@pytest.mark.parametrize(("task_id", "number"), [("", 0), ("a", 3), ("123456789", 38), ("ü", 21)])
def test_a_partition_never_changes(task_id: str, number: int) -> None:
    """The CRC-32 of the UTF-8 bytes, modulo 64 (check value of "123456789": 0xCBF43926)."""
    assert keys.partition(task_id) == number == crc32(task_id.encode()) % 64


def test_the_names_of_a_task() -> None:
    """Two digits, one hash tag."""
    names = keys.of("a")
    assert names.task == "hw:{p03}:task:a"
    assert names.replay == "hw:{p03}:replay:a"
    assert names.journal == "hw:{p03}:journal"
    assert names.channel == "hw:{p03}:events:a"
    assert names.feed == "hw:{p03}:feed"


def test_the_scripts_take_the_first_five_in_order() -> None:
    """The position in the tuple is the KEYS index in the scripts."""
    assert keys.TaskKeys._fields[:5] == ("task", "replay", "journal", "channel", "feed")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_task_id_moves_its_keys_to_another_slot(task_id: str) -> None:
    """A cluster hashes what stands between the first `{` and the next `}`: braces in an id come too late."""
    tags = {name[name.index("{") + 1 : name.index("}")] for name in keys.of(task_id)}
    assert tags == {f"p{keys.partition(task_id):02d}"}


def test_the_feeds_are_those_of_the_tasks() -> None:
    """All 64, and every task's is among them."""
    assert len(set(keys.feeds())) == keys.PARTITIONS
    assert {keys.of(str(number)).feed for number in range(1_000)} == set(keys.feeds())

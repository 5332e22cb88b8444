"""The claim check: files by ref."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.storage import FileRef, Storage, UnknownRef, safe_name


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "storage")


def leftovers(storage: Storage) -> list[str]:
    return sorted(path.name for path in storage.root.rglob("*") if path.is_file())


def test_a_file_comes_back_under_its_ref(storage):
    """Bytes, name, size and digest."""
    with storage.create("data.csv") as out:
        out.write(b"a,b\n")
        out.write(memoryview(b"1,2\n"))
    assert storage.path(out.ref).read_bytes() == b"a,b\n1,2\n"
    assert (out.size, out.sha256) == (8, hashlib.sha256(b"a,b\n1,2\n").hexdigest())
    assert storage.link(out.ref) == {"ref": out.ref, "name": "data.csv", "size": 8, "href": f"/files/{out.ref}"}


def test_a_ref_is_nothing_until_the_file_is_complete(storage):
    """Nobody reads half a file."""
    out = storage.create("data.csv")
    out.write(b"half")
    with pytest.raises(UnknownRef):
        storage.path(out.ref)
    out.commit()
    assert storage.path(out.ref).read_bytes() == b"half"


def test_an_error_in_the_block_leaves_nothing_behind(storage):
    """The writer gave up: so do we."""
    with contextlib.suppress(ZeroDivisionError), storage.create("data.csv") as out:
        out.write(b"%d" % (1 // 0))
    assert leftovers(storage) == []


def test_an_aborted_file_leaves_nothing_behind(storage):
    """And aborting twice is harmless."""
    out = storage.create("data.csv")
    out.abort()
    out.abort()
    assert leftovers(storage) == []


def test_a_committed_file_survives_a_late_abort(storage):
    """Cleaning up after a success takes nothing away."""
    out = storage.create("data.csv")
    out.commit()
    out.abort()
    assert storage.name(out.ref) == "data.csv"
    with pytest.raises(ValueError, match="committed"):
        out.commit()


def test_a_full_disk_is_told_and_leaves_nothing_behind(storage):
    """The system's own limit on a file's size stands in for the end of the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = storage.create("data.csv")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            out.write(b"x" * 4000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert leftovers(storage) == []


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "f_",
        "../../etc/passwd",
        "/etc/passwd",
        f"f_{'0' * 32}",
        f"f_{'0' * 31}G",
        f"f_{'0' * 32}\n",
        "f_" + "0" * 999,
        ".partial",
    ],
)
def test_a_ref_that_is_malformed_or_absent_is_unknown(storage, ref):
    """No path is ever made of it."""
    storage.create("data.csv").commit()
    for ask in (storage.path, storage.name, storage.link):
        with pytest.raises(UnknownRef, match="never uploaded"):
            ask(ref)


def test_only_abandoned_partial_files_are_swept(storage):
    """One still written to, and one complete, stay."""
    storage.create("complete.csv").commit()
    abandoned, active = storage.create("abandoned.csv"), storage.create("active.csv")
    past = time.time() - 7200
    os.utime(storage.root / ".partial" / abandoned.ref / "data", (past, past))
    assert storage.sweep(older_than=3600) == 1
    abandoned.abort()
    active.commit()
    assert leftovers(storage) == ["data", "data", "meta.json", "meta.json"]


def test_two_may_sweep_at_once(storage):
    """What the other has removed in the middle of it is no error."""
    for number in range(300):  # killed before they had a byte
        (storage.root / ".partial" / str(number)).mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        sweeps = [pool.submit(storage.sweep, -60) for _ in range(4)]
    assert sum(sweep.result() for sweep in sweeps) >= 300
    assert storage.sweep(-60) == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("stocks.csv", "stocks.csv"),
        ("Übersicht 2024.csv", "Übersicht 2024.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.csv", "a.csv"),
        ('a"b;c.csv', "a_b_c.csv"),
        ("a\r\nSet-Cookie: x.csv", "a__Set-Cookie_ x.csv"),
        ("harmless\u202evsc.exe", "harmless_vsc.exe"),
        ("", "file"),
        ("..", "file"),
        ("/", "file"),
        (".csv", "csv"),
        ("x" * 500 + ".csv", "x" * 196 + ".csv"),
        ("é" * 500, "é" * 100),
    ],
)
def test_a_name_is_made_safe(given, expected):
    """One plain file name, as it may stand in a header."""
    assert safe_name(given) == expected


@given(st.text(max_size=400))
def test_any_name_becomes_a_short_one_without_control_characters(name):
    """Whatever a client sends."""
    safe = safe_name(name)
    assert 0 < len(safe.encode()) <= 200
    assert not re.search(r'[\x00-\x1f"/\\]', safe)


def test_the_schema_of_a_ref_tells_forms_that_it_is_an_upload():
    """The hub's page offers a file field for it."""
    schema = msgspec.json.schema(FileRef)
    assert schema["format"] == "upload-ref"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert("../x", FileRef)

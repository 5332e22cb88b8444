"""The claim check of a hub that runs: streamed in, streamed out, and nothing left of what failed."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headway import storage as storing
from tests.conditions import until
from tests.hub.running import Hub

FORM = "multipart/form-data; boundary=b"


def files(storage: Path) -> list[str]:
    """Everything in the storage but empty folders."""
    return sorted(str(path.relative_to(storage)) for path in storage.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def _nothing_left(storage: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever happened, no partial file stays."""
    yield
    assert list((storage / storing.PARTIAL).glob("*")) == []


async def upload(hub: Hub, data: bytes, name: str = "cities.csv", field: str = "file") -> httpx.Response:
    """Upload as a browser does."""
    return await hub.client.post("/uploads", files={field: (name, data)})


async def raw(hub: Hub, body: bytes, kind: str = FORM) -> httpx.Response:
    """Upload exactly these bytes."""
    return await hub.client.post("/uploads", content=body, headers={"Content-Type": kind})


@pytest.mark.parametrize("size", [0, 1, 1_000_000, 2_999_999, 3_000_000])
async def test_a_file_goes_in_and_comes_out(hub: Hub, size: int) -> None:
    """201 with ref, name, size and digest; the download is the same bytes under the same name."""
    data = hashlib.shake_128(b"x").digest(size)
    answer = await upload(hub, data, "Städte & more.csv")
    body = answer.json()
    assert answer.status_code == 201
    assert (body["name"], body["size"]) == ("Städte & more.csv", size)
    assert body["sha256"] == hashlib.sha256(data).hexdigest()
    got = await hub.client.get(answer.headers["Location"])
    assert got.content == data
    assert got.headers["Content-Disposition"].startswith("attachment")
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert got.headers["X-Content-Type-Options"] == "nosniff"


async def test_an_uploaded_page_never_runs_as_ours(hub: Hub) -> None:
    """Whatever it is called and says it is: bytes to save."""
    answer = await upload(hub, b"<script>alert(1)</script>", "evil.html")
    got = await hub.client.get(answer.headers["Location"])
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert got.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\temp\\x.csv", "", "\u202egpj.exe", "a" * 3_000 + ".csv"])
async def test_a_name_is_only_a_name(hub: Hub, storage: Path, name: str) -> None:
    """It decides about no path."""
    quoted = name.encode().replace(b'"', b"")
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\nx\r\n--b--\r\n' % quoted
    answer = await raw(hub, body)
    assert answer.status_code == 201
    shown = answer.json()["name"]
    assert 0 < len(shown.encode()) <= 200
    assert "/" not in shown
    assert "\\" not in shown
    assert (storage / answer.json()["ref"] / "data").read_bytes() == b"x"


async def test_other_fields_are_passed_over(hub: Hub) -> None:
    """Before and after the file; of two files the first counts."""
    part = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    parts = [(b"note", b"hello"), (b"file", b"first"), (b"file", b"second"), (b"x", b"y")]
    answer = await raw(hub, b"".join(part % pair for pair in parts) + b"--b--\r\n")
    assert answer.status_code == 201
    assert (await hub.client.get(answer.headers["Location"])).content == b"first"


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b"a,b\n1,2\n", "text/csv", 415, "multipart/form-data"),
        (b"a,b\n1,2\n", "", 415, "multipart/form-data"),
        (b"x", "multipart/form-data", 400, "boundary"),
        (b"x", "multipart/form-data; boundary=" + "b" * 71, 400, "boundary"),
        (b"this is no form", FORM, 400, "well-formed"),
        (b"", FORM, 400, "file"),
        (b"--b--\r\n", FORM, 400, "file"),
        (b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n', FORM, 400, "file"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n1234', FORM, 400, "ended"),
        (b"--b\r\nX: " + b"y" * 50_000 + b"\r\n\r\n1\r\n--b--\r\n", FORM, 400, ""),
        (b"--b\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(5_000)) + b"\r\n1\r\n--b--\r\n", FORM, 400, ""),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
async def test_a_wrong_form_is_told(hub: Hub, storage: Path, body: bytes, kind: str, status: int, says: str) -> None:
    """Each with its own reason, and nothing is kept."""
    before = files(storage)
    answer = await raw(hub, body, kind)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]
    assert files(storage) == before


async def test_a_file_beyond_the_limit_is_413(hub: Hub, storage: Path) -> None:
    """Told before it is sent when its size is declared, else when the limit is passed; nothing is kept."""
    before = files(storage)
    head = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'

    async def chunks() -> Any:
        yield head
        for _ in range(60):
            yield b"x" * 100_000

    async def padding() -> Any:
        yield head + b"x\r\n" + head
        for _ in range(60):
            yield b"x" * 100_000

    for content in (head + b"x" * 5_000_000, chunks(), padding()):
        answer = await hub.client.post("/uploads", content=content, headers={"Content-Type": FORM})
        assert answer.status_code == 413
        assert answer.json()["limit"] == 3_000_000
    assert files(storage) == before


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EIO, 503)])
async def test_a_full_disk_is_507(
    hub: Hub, storage: Path, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    """Said as what it is, and nothing of the file is kept."""
    before = files(storage)

    def fail(*_: Any) -> int:
        raise OSError(code, "no")

    for method in ("write", "commit"):
        with monkeypatch.context() as patch:
            patch.setattr(storing.Writing, method, fail)
            answer = await upload(hub, b"x" * 2_000_000)
        assert answer.status_code == status
        assert files(storage) == before


async def test_a_client_gone_in_the_middle_leaves_nothing(hub: Hub, storage: Path) -> None:
    """The partial file goes with it."""
    before = files(storage)
    _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(hub.url).port)
    head = "POST /uploads HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    writer.write(f"{head}Content-Length: 3000000\r\n\r\n--b\r\n".encode())
    writer.write(b'Content-Disposition: form-data; name="file"\r\n\r\n' + b"x" * 1_500_000)
    await writer.drain()
    await until(lambda: len(files(storage)) > len(before))
    writer.transport.abort()
    await until(lambda: files(storage) == before)


@pytest.mark.parametrize(
    "ref",
    ["f_" + "0" * 32, "nothing", "..%2f..%2fetc%2fpasswd", "%2e%2e", ".partial", "f_" + "0" * 31 + "%0a", "%00", "%ff"],
)
async def test_what_is_not_there_is_404(hub: Hub, ref: str) -> None:
    """Unknown, malformed, or out of the folder: all the same."""
    answer = await hub.client.get(f"/files/{ref}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_file_that_vanished_is_told_to_who_submits_it(hub: Hub, storage: Path, catalogue: None) -> None:
    """422 that names the argument, now and not by a worker later."""
    answer = await upload(hub, b"x")
    ref = answer.json()["ref"]
    (storage / ref / "data").unlink()
    submission = {"task": "simulate", "args": {"steps": 1, "file": ref}}
    answer = await hub.client.post("/tasks", json=submission)
    assert answer.status_code == 422
    assert answer.json()["field"] == "args.file"

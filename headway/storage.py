"""The shared folder behind the claim checks: big files travel as a short ref, never through the broker.

A file lives in a folder of its own, `<root>/<ref>/`, as `data` beside `meta.json` (the name its user gave it). Both are
written in `<root>/.partial/` and appear under the ref by one rename: a crash leaves no half file under a ref.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
import unicodedata
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec

if TYPE_CHECKING:
    from types import TracebackType

REF = re.compile(r"f_[0-9a-f]{32}")
NAME_BYTES = 200  # a file system's limit is 255; this leaves room for what a download adds, such as " (1)"
PARTIAL = ".partial"

FileRef = Annotated[
    str,
    msgspec.Meta(
        pattern=f"^{REF.pattern}$",
        description="the ref of an uploaded file",
        extra_json_schema={"format": "upload-ref"},
    ),
]


class UnknownRef(LookupError):
    """No file is stored under this ref."""

    def __init__(self, ref: str) -> None:
        super().__init__(ref)
        self.ref = ref

    def __str__(self) -> str:
        return f"There is no file {self.ref[:100]!r} in storage: it was never uploaded, or it has been deleted."


class Storage:
    """Files by ref, below one folder that hub and workers share."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Use `root`, which is made when the first file is created."""
        self.root = Path(root)

    def path(self, ref: str) -> Path:
        """Return where the file's bytes are. Raises UnknownRef when `ref` is malformed or absent."""
        return self._folder(ref) / "data"

    def name(self, ref: str) -> str:
        """Return the name the user gave the file, made safe for a Content-Disposition. Raises UnknownRef."""
        try:
            meta = msgspec.json.decode((self._folder(ref) / "meta.json").read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            raise UnknownRef(ref) from None
        return meta["name"]

    def link(self, ref: str) -> dict[str, Any]:
        """Return how a task's result names a download: `{"ref", "name", "size" (bytes), "href"}`. Raises UnknownRef."""
        return {"ref": ref, "name": self.name(ref), "size": self.path(ref).stat().st_size, "href": f"/files/{ref}"}

    def create(self, name: str) -> Writing:
        """Begin a new file that its user calls `name`; use it as a context manager, or end it with commit() or abort().

        Raises OSError (disk full, read-only), and leaves nothing behind then.
        """
        return Writing(self.root, safe_name(name))

    def sweep(self, older_than: float) -> int:
        """Remove partial files that nobody has written to for `older_than` seconds; return how many."""
        swept = 0
        before = time.time() - older_than
        for folder in (self.root / PARTIAL).glob("*"):
            if _touched(folder) < before:
                shutil.rmtree(folder, ignore_errors=True)
                swept += 1
        return swept

    def _folder(self, ref: str) -> Path:
        # fullmatch before any path is built: no separator, no "..", no absolute path gets further than this line.
        if not REF.fullmatch(ref) or not (self.root / ref / "data").is_file():
            raise UnknownRef(ref)
        return self.root / ref


class Writing:
    """A file on its way into storage. `ref` is known at once; `size` (bytes) and `sha256` (hex) grow with each write.

    One thread at a time may use it; which thread may change from call to call.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.ref = f"f_{uuid.uuid4().hex}"
        self.name = name
        self.size = 0
        self._digest = hashlib.sha256()
        self._root = root
        self._folder = root / PARTIAL / self.ref
        self._open = True
        try:
            self._folder.mkdir(parents=True)
            # Unbuffered: after a full disk there is no rest in a buffer that close() would trip over again.
            self._file = (self._folder / "data").open("xb", buffering=0)
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    @property
    def sha256(self) -> str:
        """The digest of what has been written so far, as hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append `data` and return its length in bytes. Raises OSError, after an abort(), when the disk is full."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self.abort()
            raise
        self._digest.update(data)
        self.size += len(data)
        return len(data)

    def commit(self) -> None:
        """Make the file appear under its ref, durably. Raises OSError, after an abort()."""
        if not self._open:
            raise ValueError(f"{self.ref} has been committed or aborted")
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            with (self._folder / "meta.json").open("xb") as meta:
                meta.write(msgspec.json.encode({"name": self.name}))
                meta.flush()
                os.fsync(meta.fileno())
            _fsync_folder(self._folder)
            self._folder.rename(self._root / self.ref)
            _fsync_folder(self._root)
        except OSError:
            self.abort()
            raise
        self._open = False

    def abort(self) -> None:
        """Remove what has been written. Harmless after commit() or another abort()."""
        if self._open:
            self._open = False
            self._file.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._open:
            self.commit()
        else:
            self.abort()


def safe_name(name: str) -> str:
    """Return `name` as one plain file name: no folders, quotes, control or direction characters, at most 200 bytes."""
    base = re.split(r"[/\\]", name)[-1]
    # Categories C*: control, format (the right-to-left override that dresses an .exe as .csv), surrogates, unassigned.
    plain = "".join("_" if unicodedata.category(char)[0] == "C" or char in '"<>|:*?;' else char for char in base)
    stem, dot, suffix = plain.strip(" .").rpartition(".")
    if not dot or len(suffix.encode()) > NAME_BYTES // 4:
        stem, suffix = plain.strip(" ."), ""
    room = NAME_BYTES - len((dot + suffix).encode() if suffix else b"")
    short = stem.encode()[:room].decode(errors="ignore")
    return (f"{short}.{suffix}" if suffix else short) or "file"


def _touched(folder: Path) -> float:
    """When a partial file was last written to; now, if it is gone meanwhile: complete, or swept by somebody else."""
    for path in (folder / "data", folder):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return path.stat().st_mtime
    return time.time()


def _fsync_folder(folder: Path) -> None:
    """Make the folder's own entries durable: fsync of a file does not cover its name."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

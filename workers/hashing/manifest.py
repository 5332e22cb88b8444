"""A manifest: one line per file, in the form that `sha256sum -c` (md5sum, b2sum, …) reads.

One manifest per algorithm, because that is what those programs check; a file with all digests in one line could be
checked only by a program of ours.
"""

from __future__ import annotations

from headway.storage import Storage, Writing

CHUNK = 256 * 1024
"""Bytes that are written at a time."""
# GNU coreutils: a name with one of these is written escaped, and its line begins with a backslash.
_ESCAPES = ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"))


class Manifest:
    """A text file on its way into storage, line by line."""

    def __init__(self, storage: Storage, name: str) -> None:
        """Raises OSError when storage is full or read-only."""
        self.out: Writing = storage.create(name)
        self._buffer = bytearray()

    def add(self, line: bytes) -> None:
        """Append a line. Raises OSError."""
        self._buffer += line
        if len(self._buffer) > CHUNK:
            self._flush()

    def commit(self) -> str:
        """Make the file appear and return its ref. Raises OSError."""
        self._flush()
        self.out.commit()
        return self.out.ref

    def abort(self) -> None:
        """Remove it, unless it is committed."""
        self.out.abort()

    def _flush(self) -> None:
        self.out.write(self._buffer)
        self._buffer = bytearray()


def line(digest: str, path: bytes) -> bytes:
    """Return a file's line in a manifest."""
    name = path
    for char, escape in _ESCAPES:
        name = name.replace(char, escape)
    mark = b"" if name == path else b"\\"
    return mark + digest.encode() + b"  " + name + b"\n"

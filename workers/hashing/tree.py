"""The files below a folder, in an order that is always the same, without ever leaving the folder.

Every folder and file is opened relative to the one above it and never through a symbolic link, so that a folder
swapped for a link at the wrong moment leads nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_DEPTH = 200  # each level holds a file descriptor


@dataclass(frozen=True)
class Found:
    """One thing below the root: a regular file, or something that cannot be read and why."""

    path: bytes
    """Relative to the root, with "/" between names."""
    name: bytes
    folder: int
    """Descriptor of the folder it is in; open until the next item is asked for."""
    size: int = 0
    problem: str | None = None


def walk(root: Path) -> Iterator[Found]:
    """Yield every file below `root`, each folder's names in byte order. Symbolic links are passed over.

    Raises OSError when the root itself cannot be opened.
    """
    with _folder(os.fsencode(root), None) as folder:
        yield from _walk(folder, b"", 1)


def open_file(found: Found) -> int:
    """Open the file and return its descriptor. Raises OSError when it has vanished or may not be read."""
    # NONBLOCK: should it have become a pipe meanwhile, open() must not wait for someone to write to it.
    fd = os.open(found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=found.folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("it is not a regular file any more")
    return fd


def reason(error: OSError) -> str:
    """Say what happened, without the path."""
    return error.strerror or str(error)


@contextlib.contextmanager
def _folder(name: bytes, parent: int | None) -> Iterator[int]:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _walk(folder: int, prefix: bytes, depth: int) -> Iterator[Found]:
    # listdir by descriptor gives str: surrogates stand for undecodable bytes, and fsencode brings those back.
    for name in sorted(map(os.fsencode, os.listdir(folder))):
        path = prefix + name
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield Found(path, name, folder, status.st_size)
            elif stat.S_ISDIR(status.st_mode):
                if depth == MAX_DEPTH:
                    yield Found(path, name, folder, problem=f"more than {MAX_DEPTH} folders deep")
                    continue
                with _folder(name, folder) as inner:
                    yield from _walk(inner, path + b"/", depth + 1)
            elif not stat.S_ISLNK(status.st_mode):
                yield Found(path, name, folder, problem="not a regular file")
        except OSError as error:
            yield Found(path, name, folder, problem=reason(error))

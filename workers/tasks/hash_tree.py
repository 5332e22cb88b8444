"""Digests of every file below a folder, with several hashes in one read of each file."""

import contextlib
import csv
import hashlib
import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from headway import Progress
from headway.storage import Storage
from workers import settings
from workers.app import app
from workers.hashing.manifest import Manifest, line
from workers.hashing.tree import Found, open_file, reason, walk
from workers.problems import FULL, BadArgument, DiskFull, JobError, OutsideRoots

READ = 1 << 20
"""Bytes of a read."""
PROBLEMS_TOLD = 5
"""Unreadable files that get a log line each; all of them are in the list to download."""

# hashlib.algorithms_guaranteed without SHAKE, whose digests have no length of their own.
Algorithm = Literal[
    "md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_224", "sha3_256", "sha3_384", "sha3_512",
    "blake2b", "blake2s",
]  # fmt: skip
Algorithms = Annotated[list[Algorithm], Meta(min_length=1, max_length=12, description="hash algorithms")]
Root = Annotated[str, Meta(min_length=1, max_length=4096, description="a folder below one that the worker may read")]


@app.task(name="hash_tree", shared=False, bind=True, catalogue=True, throws=(JobError,))  # type: ignore[untyped-decorator]  # Celery has no annotations
def hash_tree(self: Any, root: Root, algorithms: Algorithms = ["sha256"]) -> dict[str, Any]:  # noqa: B006  # never changed, and the schema shows it as the default
    """Digest every file below a folder, with one manifest to download for each algorithm.

    Paths in a manifest are relative to the folder: `sha256sum -c` checks it from there. Symbolic links are not
    followed; what cannot be read is counted and listed with the reason. Raises JobError.
    """
    strange = sorted(set(algorithms) - {name for name in hashlib.algorithms_guaranteed if "shake" not in name})
    if strange or not algorithms:
        raise BadArgument(f"There is no hash algorithm {strange[0]!r} here." if strange else "Name a hash algorithm.")
    folder = allowed(root)
    try:
        return _Hashing(folder, list(dict.fromkeys(algorithms)), settings.storage()).run()
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull("There is no room left for the manifest.") from error
        raise JobError(f"The folder {root!r} cannot be hashed: {reason(error)}.") from error


def allowed(root: str) -> Path:
    """Return the folder with its symbolic links resolved. Raises BadArgument or OutsideRoots."""
    try:
        folder = Path(root).resolve()
    except (OSError, ValueError, RuntimeError):
        raise BadArgument(f"{root!r} is not a path.") from None
    # First whether it is allowed: whether a folder outside exists is nobody's business.
    if not any(folder.is_relative_to(allowed_root) for allowed_root in settings.hash_roots()):
        raise OutsideRoots(f"The folder {root!r} is not below one that this worker may read (HEADWAY_HASH_ROOTS).")
    if not folder.is_dir():
        raise BadArgument(f"There is no folder {root!r}.")
    return folder


@dataclass
class _Hashing:
    """One run over a folder."""

    root: Path
    algorithms: list[str]
    storage: Storage
    progress: Progress = field(default_factory=Progress)
    files: int = 0
    size: int = 0
    unreadable: int = 0
    problems: Manifest | None = None

    def run(self) -> dict[str, Any]:
        began = time.monotonic()
        expected = self._scan()
        with self._manifests() as manifests, self.progress.stage("hash", total=expected, unit="bytes") as stage:
            self.progress.set(message="hashing")
            for found in walk(self.root):
                self._hash(found, manifests, stage, expected)
            links = {name: self.storage.link(manifest.commit()) for name, manifest in manifests.items()}
        self.progress.set(current=self.files, total=self.files, unit="files", message=f"{self.files:,} files hashed")
        return {
            "root": str(self.root),
            "files": self.files,
            "bytes": self.size,
            "unreadable": self.unreadable,
            "manifests": links,
            "problems": None if self.problems is None else self.storage.link(self.problems.commit()),
            "seconds": round(time.monotonic() - began, 3),
        }

    def _scan(self) -> int:
        """Return how many bytes there are to read."""
        self.progress.set(message="looking for files")
        size = 0
        with self.progress.stage("scan", weight=0.02, unit="files") as stage:
            for found in walk(self.root):
                size += found.size
                stage.advance()
        return size

    @contextlib.contextmanager
    def _manifests(self) -> Iterator[dict[str, Manifest]]:
        with contextlib.ExitStack() as stack:
            manifests = {}
            for name in self.algorithms:
                manifests[name] = Manifest(self.storage, f"{name.upper()}SUMS")
                stack.callback(manifests[name].abort)
            try:
                yield manifests
            except BaseException:
                if self.problems is not None:
                    self.problems.abort()
                raise

    def _hash(self, found: Found, manifests: dict[str, Manifest], stage: Progress, expected: int) -> None:
        try:
            digests = self._digests(found, stage, expected)
        except OSError as error:
            self._problem(found, reason(error))
            return
        if digests is not None:
            self.files += 1
            for name, digest in digests.items():
                manifests[name].add(line(digest, found.path))

    def _digests(self, found: Found, stage: Progress, expected: int) -> dict[str, str] | None:
        if found.problem is not None:
            self._problem(found, found.problem)
            return None
        hashes = {name: hashlib.new(name, usedforsecurity=False) for name in self.algorithms}
        buffer = memoryview(bytearray(READ))
        before = self.size
        try:
            with open(open_file(found), "rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    for digest in hashes.values():
                        digest.update(buffer[:count])
                    self.size += count
                    # Files grow while they are read.
                    stage.set(current=self.size, total=max(expected, self.size))
        except OSError:
            self.size = before
            raise
        return {name: digest.hexdigest() for name, digest in hashes.items()}

    def _problem(self, found: Found, why: str) -> None:
        # What a name in no known encoding looks like has to be writable as text.
        name = os.fsdecode(found.path).encode("utf-8", "backslashreplace").decode()
        if self.problems is None:
            self.problems = Manifest(self.storage, "unreadable.csv")
            self.problems.add(_csv_line("path", "reason"))
        self.problems.add(_csv_line(name, why))
        self.unreadable += 1
        if self.unreadable <= PROBLEMS_TOLD:
            self.progress.log(f"{name} is left out: {why}", level="warning")


def _csv_line(*fields: str) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(fields)
    return buffer.getvalue().encode()

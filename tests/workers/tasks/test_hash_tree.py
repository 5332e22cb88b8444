"""hash_tree against real folders, checked by the programs that its manifests are for."""

from __future__ import annotations

import csv
import hashlib
import os
import resource
import subprocess
import sysconfig
from pathlib import Path

import pytest

from headway.storage import Storage
from workers import problems
from workers.hashing import tree
from workers.tasks import hash_tree as module
from workers.tasks.hash_tree import hash_tree


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder that may be hashed."""
    monkeypatch.setenv("HEADWAY_HASH_ROOTS", os.pathsep.join(["/no/such/folder", str(tmp_path / "root")]))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def lines(storage: Storage, result, algorithm: str = "sha256") -> list[bytes]:
    return storage.path(result["manifests"][algorithm]["ref"]).read_bytes().splitlines()


def unreadable(storage: Storage, result) -> list[list[str]]:
    return list(csv.reader(storage.path(result["problems"]["ref"]).read_text().splitlines()))[1:]


@pytest.mark.parametrize(("algorithm", "program"), [("sha256", "sha256sum"), ("md5", "md5sum"), ("blake2b", "b2sum")])
def test_the_usual_programs_check_a_manifest(algorithm, program, storage, monkeypatch):
    """On real files: the json package of Python's own standard library, and its tests."""
    package = Path(sysconfig.get_path("stdlib")).resolve() / "json"
    monkeypatch.setenv("HEADWAY_HASH_ROOTS", str(package.parent))
    result = hash_tree(root=str(package), algorithms=[algorithm])
    manifest = storage.path(result["manifests"][algorithm]["ref"])
    checked = subprocess.run([program, "--check", "--strict", manifest], cwd=package, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(b": OK\n") == result["files"] > 4


def test_several_algorithms_read_each_file_once(root, storage):
    """Bytes are counted once, and each manifest has every file."""
    (root / "a").write_bytes(b"x" * 3_000_000)
    result = hash_tree(root=str(root), algorithms=["sha256", "sha3_512", "sha256"])
    assert (result["files"], result["bytes"]) == (1, 3_000_000)
    assert lines(storage, result) == [hashlib.sha256(b"x" * 3_000_000).hexdigest().encode() + b"  a"]
    assert lines(storage, result, "sha3_512")[0].startswith(hashlib.sha3_512(b"x" * 3_000_000).hexdigest().encode())


@pytest.mark.parametrize(
    "name", [b"new\nline", b"back\\slash", b"carriage\rreturn", b"not-utf8-\xff", b" ", "é".encode()]
)
def test_any_name_is_written_as_sha256sum_does(name, root, storage):
    """Byte for byte."""
    with open(os.fsencode(root) + b"/" + name, "wb") as file:
        file.write(b"content")
    result = hash_tree(root=str(root))
    expected = subprocess.run([b"sha256sum", b"--", name], cwd=root, capture_output=True, check=True).stdout
    assert storage.path(result["manifests"]["sha256"]["ref"]).read_bytes() == expected


def test_the_order_is_always_the_same(root, storage):
    """Folder by folder, names by their bytes."""
    for name in ("b/2", "b/1", "a/z", "Z", "é", "a.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    names = [line.split(b"  ")[1].decode() for line in lines(storage, hash_tree(root=str(root)))]
    assert names == ["Z", "a/z", "a.txt", "b/1", "b/2", "é"]


def test_symbolic_links_are_not_followed(root, tmp_path, storage):
    """Neither to files, nor to folders, nor in a circle."""
    (tmp_path / "secret").write_text("secret")
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    (root / "loop").symlink_to(root)
    result = hash_tree(root=str(root))
    assert (result["files"], result["unreadable"]) == (0, 0)


def test_what_is_no_file_is_listed_with_the_reason(root, storage):
    """A pipe does not make it wait."""
    os.mkfifo(root / "pipe")
    (root / "file").touch()
    result = hash_tree(root=str(root))
    assert (result["files"], result["unreadable"]) == (1, 1)
    assert unreadable(storage, result) == [["pipe", "not a regular file"]]


def test_a_file_that_vanishes_is_listed_and_not_fatal(root, storage, monkeypatch):
    """Deleted between listing and reading."""
    for name in "abc":
        (root / name).touch()
    open_file = tree.open_file

    def vanish(found):
        if found.path == b"b":
            (root / "b").unlink()
        return open_file(found)

    monkeypatch.setattr(module, "open_file", vanish)
    result = hash_tree(root=str(root))
    assert result["files"] == 2
    assert unreadable(storage, result) == [["b", "No such file or directory"]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_listed(root, storage):
    """A file and a folder without permission."""
    (root / "file").touch(mode=0)
    (root / "folder").mkdir(mode=0)
    result = hash_tree(root=str(root))
    assert unreadable(storage, result) == [["file", "Permission denied"], ["folder", "Permission denied"]]


def test_a_tree_that_is_too_deep_is_listed_and_not_fatal(root, storage, monkeypatch):
    """Each level holds a descriptor."""
    monkeypatch.setattr(tree, "MAX_DEPTH", 2)
    (root / "1/2/3").mkdir(parents=True)
    (root / "1/file").touch()
    result = hash_tree(root=str(root))
    assert result["files"] == 1
    assert unreadable(storage, result) == [["1/2", "more than 2 folders deep"]]


@pytest.mark.parametrize(
    "path", ["/", "/etc", "../..", "{root}/..", "{root}-sibling", "{root}/link", "{root}/../no-such"]
)
def test_a_folder_outside_is_refused(path, root, storage):
    """Also by "..", by a link, by a name that begins alike; whether it exists is not told."""
    (root / "link").symlink_to("/etc")
    Path(f"{root}-sibling").mkdir()
    with pytest.raises(problems.OutsideRoots):
        hash_tree(root=path.format(root=root))


def test_without_roots_nothing_is_allowed(root, storage, monkeypatch):
    """No configuration means no access."""
    monkeypatch.delenv("HEADWAY_HASH_ROOTS")
    with pytest.raises(problems.OutsideRoots):
        hash_tree(root=str(root))


@pytest.mark.parametrize(
    "args",
    [
        {"root": "{root}/none"},
        {"root": "{root}/file"},
        {"root": "a\0b"},
        {"root": "{root}", "algorithms": ["shake_128"]},
        {"root": "{root}", "algorithms": ["crc32"]},
        {"root": "{root}", "algorithms": []},
    ],
)
def test_arguments_that_make_no_sense_are_refused(args, root, storage):
    """A folder that is not there or not one, an algorithm that is none."""
    (root / "file").touch()
    with pytest.raises(problems.BadArgument, match=r"\.$"):
        hash_tree(**{**args, "root": args["root"].format(root=root)})
    assert list(storage.root.rglob("data")) == []


def test_no_room_for_the_manifest_is_a_problem_of_its_own(root, storage):
    """A full disk ends it with a sentence, and nothing is left behind."""
    for number in range(20):
        (root / str(number)).touch()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(problems.DiskFull):
            hash_tree(root=str(root))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(storage.root.rglob("data")) == []

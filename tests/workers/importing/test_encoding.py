"""Which encoding a file is in."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest

from workers.importing import encoding
from workers.importing.encoding import examine
from workers.problems import BadArgument, EmptyFile, NotText, WrongEncoding


@pytest.fixture
def file(tmp_path):
    def write(data: bytes):
        path = tmp_path / "file.csv"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize(
    ("data", "expected", "start"),
    [
        (b"a,b\n1,2\n", "utf-8", 0),
        ("é,ü\n".encode(), "utf-8", 0),
        ("a,é\n".encode("utf-8-sig"), "utf-8", 3),
        ("a,é\n".encode("utf-16"), "utf-16-le", 2),
        ("a,b\n1,2\n".encode("utf-16-be"), "utf-16-be", 0),
        ("a,b\n".encode("utf-32"), "utf-32-le", 4),
        ("name,ort\nJörg,Köln\n".encode("cp1252"), "cp1252", 0),
        ("имя,город\nИван Петров,Москва\n".encode("cp1251"), "cp1251", 0),  # noqa: RUF001  # Cyrillic is meant
        ("名前,年齢\n山田太郎,二十歳です\n".encode("cp932"), "cp932", 0),
    ],
)
def test_the_encoding_is_found_out(file, data, expected, start):
    """By byte order mark, by being UTF-8, or by what the letters say."""
    found = examine(file(data))
    assert (found.encoding, found.start) == (expected, start)


def test_a_foreign_letter_in_the_last_line_of_a_big_file_is_found(file):
    """The whole file is looked at, not its first kilobytes."""
    assert examine(file(b"a,b\n" * 700_000 + "Müller,Köln\n".encode("cp1252"))).encoding == "cp1252"


def test_one_damaged_line_does_not_make_utf8_something_else(file):
    """The line will be a reject; the others keep their letters."""
    assert examine(file("é,ü\n".encode() * 50 + b"\xe9,x\n" + "é,ü\n".encode() * 50)).encoding == "utf-8"


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", 2),
        (b"a\nb", 2),
        (b"a\r\nb\r\n", 2),
        (b"a\rb\r", 2),
        (b"a\r\n\r\nb", 3),
        (b"\n\n", 2),
        (b"a\r\nb\rc\n", 3),
    ],
)
def test_lines_are_counted_with_any_line_end(file, monkeypatch, data, lines, block):
    """Also when a block ends inside of a CRLF, and when the last line has no end."""
    monkeypatch.setattr(encoding, "BLOCK", block)
    assert examine(file(data)).lines == lines
    assert examine(file(data.decode().encode("utf-16"))).lines == lines


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [_zip(), gzip.compress(b"a,b\n"), bytes(range(256)) * 20, b"\x89PNG\r\n\x1a\n"],
    ids=["workbook", "archive", "program", "picture"],  # an archive has the time in it, and a test always one name
)
def test_what_is_not_text_is_refused(file, data):
    """A workbook, an archive, a picture, a program."""
    with pytest.raises(NotText):
        examine(file(data))


def test_an_empty_file_is_refused(file):
    """It has not even a header."""
    with pytest.raises(EmptyFile):
        examine(file(b""))


@pytest.mark.parametrize("name", ["no-such", "base64", "utf-7", "iso2022_jp", "rot13", "a\0b"])
def test_an_encoding_that_cannot_be_used_is_refused(file, name):
    """Unknown, not of text, or without positions to go on from."""
    with pytest.raises(BadArgument):
        examine(file(b"a,b\n"), name)


@pytest.mark.parametrize(("name", "data"), [("utf-16", b"a,b\n1,2\n"), ("cp1252", "a,b\n".encode("utf-16"))])
def test_a_given_encoding_that_the_file_contradicts_is_refused(file, name, data):
    """By its byte order mark, or by having no lines when read that way."""
    with pytest.raises(WrongEncoding):
        examine(file(data), name)

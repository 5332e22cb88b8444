"""In which encoding a file is, and how many lines it has: one look at every byte, before anything is imported.

Every byte, because a file that is ASCII for its first gigabyte may say "Müller" in its last line.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import charset_normalizer

from workers.problems import BadArgument, EmptyFile, NotText, WrongEncoding

BLOCK = 1 << 20
HEAD = 4096
SAMPLE = 64 * 1024  # bytes of undecodable lines that the guess is made from: more makes it slower, not better

STRAY = 8  # control bytes that even a tiny file may have

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MAGIC = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook (.xlsx)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"BZh", "bzip2-compressed"),
    (b"\xfd7zXZ\x00", "xz-compressed"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (b"%PDF-", "a PDF"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "a program"),
)
# A byte position in a file of these means nothing without the bytes before it, so no import could be resumed.
STATEFUL = ("utf-7", "utf7", "iso2022", "iso-2022", "hz", "punycode", "idna", "unicode_escape", "raw_unicode")
LIKELY = ["cp1252", "iso8859_15", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp932"]
LIKELY += ["euc_jp", "cp949", "gb18030", "big5", "mac_roman", "cp850"]


@dataclass(frozen=True)
class Text:
    """How to read a file: the codec, the offset of the first byte after a byte order mark, and the number of lines."""

    encoding: str
    start: int = 0
    lines: int = 0

    @property
    def wide(self) -> bool:
        """Whether a line end is more than one byte."""
        return self.encoding.startswith(("utf-16", "utf-32"))

    @property
    def errors(self) -> str:
        """The error handler that keeps what cannot be decoded as lone surrogates, so that it can be told and counted.

        Encoding with the same handler gives back the same bytes, which is what byte positions are made of.
        """
        return "surrogatepass" if self.wide else "surrogateescape"


def examine(path: Path, given: str | None = None, tick: Callable[[int], None] = lambda _bytes: None) -> Text:
    """Read the file once and say how to read it as text; `tick` is called with the number of bytes done.

    Raises EmptyFile, NotText, WrongEncoding, or BadArgument for an encoding that does not exist or has no positions.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
        if not head:
            raise EmptyFile("The file is empty.")
        _refuse_binary(head)
        marked, start = next(((name, len(bom)) for bom, name in BOMS if head.startswith(bom)), (None, 0))
        encoding = _named(given, head, marked) if given else marked or _unmarked_wide(head)
        if encoding is None:
            _refuse_control(head)
        file.seek(start)
        scan = _Scan(encoding)
        while block := file.read(BLOCK):
            scan.feed(block)
            tick(file.tell())
    return Text(scan.encoding or "utf-8", start, scan.lines)


def _refuse_binary(head: bytes) -> None:
    for magic, kind in MAGIC:
        if head.startswith(magic):
            raise NotText(f"The file is {kind}, not CSV text: save or unpack it as CSV first.")


def _refuse_control(head: bytes) -> None:
    # A few stray control bytes are bad rows; a share of them is a program, a picture, a database (random bytes: 11 %).
    control = sum(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in head)
    if control >= STRAY and control * 20 > len(head):
        raise NotText("The file is binary data, not CSV text.")


def _named(given: str, head: bytes, marked: str | None) -> str:
    """Return the codec the user asked for, with its byte order settled."""
    try:
        name = codecs.lookup(given).name
        "".encode(name)  # LookupError for what is no text encoding, such as base64
    except (LookupError, ValueError):
        raise BadArgument(f"There is no encoding {given[:40]!r}.") from None
    if name.startswith(STATEFUL):
        raise BadArgument(f"The encoding {given!r} cannot be imported: convert the file to UTF-8 first.")
    name = "utf-8" if name == "utf-8-sig" else name
    if name in {"utf-16", "utf-32"}:
        name = marked if marked and marked.startswith(name) else f"{name}-le"
    if marked and name != marked:
        raise WrongEncoding(f"The file begins with the byte order mark of {marked}, so it is not {given}.")
    if name.startswith(("utf-16", "utf-32")):
        text = head[: len(head) // 4 * 4].decode(name, "replace")
        if "\n" not in text and "\r" not in text and b"\n" in head:
            raise WrongEncoding(f"The file is not {given}: read that way it has no lines.")
    return name


def _unmarked_wide(head: bytes) -> str | None:
    """Recognise UTF-16 without a byte order mark: in a table, every other byte is nearly always 0."""
    half = len(head) // 2
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if half and odd > half * 0.4 and even < half * 0.05:
        return "utf-16-le"
    if half and even > half * 0.4 and odd < half * 0.05:
        return "utf-16-be"
    return None


@dataclass
class _Scan:
    """Counts lines, and follows UTF-8 until it fails."""

    encoding: str | None
    lines: int = 0
    _decoder: codecs.IncrementalDecoder = field(init=False)
    _seen_utf8: bool = False
    _last: bytes | str = b""

    def __post_init__(self) -> None:
        wide = self.encoding is not None and Text(self.encoding).wide
        self._decoder = codecs.getincrementaldecoder(self.encoding if wide and self.encoding else "utf-8")()
        self._decoder.errors = "replace" if wide else "strict"
        self._wide = wide

    def feed(self, block: bytes) -> None:
        if self._wide:
            self._count(self._decoder.decode(block).encode("utf-8", "replace"))
            return
        self._count(block)
        if self.encoding is None and not (block.isascii() and not self._decoder.getstate()[0]):
            try:
                self._decoder.decode(block)
                self._seen_utf8 = True
            except UnicodeDecodeError:
                self.encoding = "utf-8" if self._seen_utf8 else _guess(block)

    def _count(self, block: bytes) -> None:
        if not block:
            return
        ends = block.count(b"\n")
        if b"\r" in block:
            ends += block.count(b"\r") - block.count(b"\r\n")
            ends -= self._last == b"\r" and block[:1] == b"\n"
        elif self._last == b"\r" and block[:1] == b"\n":
            ends -= 1
        # A last line without an end is a line: count it, and take it back if the file goes on.
        self.lines += ends - (self._last not in (b"", b"\n", b"\r")) + (block[-1:] not in (b"\n", b"\r"))
        self._last = block[-1:]


def _guess(block: bytes) -> str:
    """Return the encoding of a block that is not all UTF-8: "utf-8" when it is damaged UTF-8, else the likeliest."""
    lines = block.split(b"\n")[1:-1] or [block]  # its first and last line may begin or end inside a character
    high = [line for line in lines if not line.isascii()] or [block]
    bad = [line for line in high if not _is_utf8(line)]
    if len(bad) * 2 < len(high):
        return "utf-8"
    sample = b"\n".join(bad or high)[:SAMPLE]
    matches = charset_normalizer.from_bytes(sample, cp_isolation=LIKELY)
    best = matches.best()
    if best is None:
        raise WrongEncoding("The file is not UTF-8 and no other encoding fits it: name its encoding.")
    # A few accented letters fit every Western code page alike; then it is the one that Excel writes.
    alike = [m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
    if any("cp1252" in (m.encoding, *m.could_be_from_charset) for m in alike):
        return "cp1252"
    return best.encoding


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True

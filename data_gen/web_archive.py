"""Records of web archives (WARC 1.0 and 1.1, WET) and the text of the pages in them. No files are opened and no network is asked.

Written out, because the usual readers end without a word where a file is cut off: warcio gives the half record there is, or none at
all of a gzipped file. Here the end of a record that never comes is an error.

    for record in read_records(file, "crawl.warc"):
        page = page_of(record)        # None for a request, an image, a redirect
"""

import codecs
import html
import logging
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from data_gen import UsageError
from data_gen.ingest_rows import PACKED, TOO_LARGE

MAX_RECORD = 8 << 20  # bytes; a page of more is a download or a trap
MAX_TAGS = 30_000  # of a page; trafilatura's time grows with their square, and these are seconds
_LINE = 1 << 16  # bytes of a header line
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_HEADER_CHARSET = re.compile(r"""charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_GOOD = re.compile(r"HTTP/\S+ 200\b")
_GAP = re.compile(rb"\r?\n\r?\n")
_LOOKS_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# What servers say and browsers understand (the WHATWG's encoding standard, for those that matter here).
_READ_AS = {"iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874"}


@dataclass(frozen=True)
class Archived:
    """A record: where it begins (a byte of the decompressed file), its headers by their names in small letters, its content, or
    None where that is longer than MAX_RECORD.
    """

    begins: int
    headers: Mapping[str, str]
    content: bytes | None


@dataclass(frozen=True)
class Page:
    """A page: its text and title; or a fault, one of ingest_rows.FAULTS, and why in words."""

    text: str
    title: str = ""
    fault: str = ""
    why: str = ""


# --- records ------------------------------------------------------------------------------------------------------------


def read_records(file: BinaryIO, name: str) -> Iterator[Archived]:
    """The records of a decompressed archive. Raises UsageError where one is cut off or none begins; `name` is for its message."""
    at = 0
    while line := file.readline(_LINE):
        if not line.strip():
            at += len(line)
            continue
        where = f"{name}, byte {at} of its content"
        if not line.startswith(b"WARC/") and line.endswith(b"\n"):
            raise UsageError(f"{where}: no WARC record begins here, but {line[:40]!r}; leave the file out")
        head, whole = _head(file)
        headers = _headers(head)
        size = headers.get("content-length", "")
        if whole and not size.isdecimal():
            raise UsageError(f"{where}: the record has no Content-Length; leave the file out")
        content = _content(file, int(size)) if whole else None
        if content is None:
            raise UsageError(f"{where}: the record that begins here is cut off; fetch the file again")
        yield Archived(at, headers, content if int(size) <= MAX_RECORD else None)
        at += len(line) + len(head) + int(size)


def _head(file: BinaryIO) -> tuple[bytes, bool]:
    """The lines up to the empty one, which is of them, and whether it came."""
    lines = list[bytes]()
    while line := file.readline(_LINE):
        lines.append(line)
        if not line.rstrip(b"\r\n"):
            return b"".join(lines), True
    return b"".join(lines), False


def _headers(head: bytes) -> dict[str, str]:
    headers, name = dict[str, str](), ""
    for line in head.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        if line[:1] in (" ", "\t") and name:  # the value goes on
            headers[name] += " " + line.strip()
        elif line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers[name] = value.strip()
    return headers


def _content(file: BinaryIO, size: int) -> bytes | None:
    """The next `size` bytes; None where they are not all there. Of more than MAX_RECORD the last ones only."""
    content, left = b"", size
    while left > MAX_RECORD:
        skipped = len(file.read(min(left - MAX_RECORD, MAX_RECORD)))
        if not skipped:
            return None
        left -= skipped
    while left and (read := file.read(left)):
        content += read
        left -= len(read)
    return None if left else content


# --- pages --------------------------------------------------------------------------------------------------------------


def page_of(record: Archived) -> Page | None:
    """The page of a record: of a WET file (`conversion`) its text, of an answer of status 200 in HTML the text within it.
    An answer that does not say what it is, is HTML if it begins like it.

    None for everything that is no page: requests, metadata, redirects, images.
    """
    kind = record.headers.get("warc-type")
    if kind not in ("conversion", "response"):
        return None
    if record.content is None:
        return Page("", fault=TOO_LARGE, why=f"a page of more than {MAX_RECORD >> 20} MiB")
    if kind == "conversion":
        return Page(record.content.decode("utf-8", "replace"))
    return _answer(record.content)


def _answer(content: bytes) -> Page | None:
    """The page in what a server answered: status line, headers, an empty line, body."""
    gap = _GAP.search(content)
    if not gap:
        return None
    lines, body = content[: gap.start()].decode("latin-1").splitlines(), content[gap.end() :]
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    kind = headers.get("content-type", "")
    if not lines or not _GOOD.match(lines[0]) or kind.split(";")[0].strip().lower() not in ("", *_HTML_TYPES):
        return None
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunked(body)
    unpacked = _unpacked(body, headers.get("content-encoding", "").lower())
    if unpacked is None:
        return Page("", fault=PACKED, why=f"Content-Encoding: {headers['content-encoding']}")
    if not kind and not _LOOKS_HTML.match(unpacked):
        return None
    source = decoded(unpacked, kind)
    if source.count("<") > MAX_TAGS:
        return Page("", fault=TOO_LARGE, why=f"a page of more than {MAX_TAGS:,} tags")
    title = _TITLE.search(source)
    return Page(html_text(source), " ".join(html.unescape(title[1]).split()) if title else "")


def _unchunked(body: bytes) -> bytes:
    """Without the lengths between the pieces; as it is where there are none, for some archives join them and keep the header."""
    pieces, at = list[bytes](), 0
    while (end := body.find(b"\r\n", at)) >= 0:
        try:
            size = int(body[at:end].split(b";")[0], 16)
        except ValueError:
            return b"".join(pieces) if pieces else body
        if not size:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(pieces) if pieces else body


def _unpacked(body: bytes, packed: str) -> bytes | None:
    """At most MAX_RECORD bytes of what was packed; None where that cannot be undone. Some archives unpack and keep the header."""
    if packed in ("", "identity") or body[:100].lstrip().startswith(b"<"):
        return body
    if packed not in ("gzip", "x-gzip", "deflate"):
        return None
    wraps = (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS)  # gzip or zlib by its head; deflate without one
    for wrap in wraps:
        try:
            return zlib.decompressobj(wrap).decompress(body, MAX_RECORD)
        except zlib.error:
            continue
    return None


def decoded(content: bytes, content_type: str = "") -> str:
    """HTML as text: by its byte order mark, the header's charset, its own <meta>, else UTF-8; what cannot be read is U+FFFD.

    decoded("سلام".encode("cp1256"), "text/html; charset=windows-1256") == "سلام"
    """
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    named, own = _HEADER_CHARSET.search(content_type), _META_CHARSET.search(content[:4096])
    for charset in (named[1] if named else "", own[1].decode("ascii", "replace") if own else ""):
        try:
            name = codecs.lookup(charset).name
        except LookupError:
            continue
        try:
            return content.decode(_READ_AS.get(name, name))
        except UnicodeError:  # the server says what it does not do
            continue
    return content.decode("utf-8", "replace")


def html_text(source: str) -> str:
    """The main text of an HTML page by trafilatura, which leaves menus, comments and footers out; "" where it finds none."""
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it tells of every page without text
    return trafilatura.extract(source, favor_precision=True, include_comments=False) or ""

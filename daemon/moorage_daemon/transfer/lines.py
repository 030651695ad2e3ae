"""The file: one JSON object a line, a session's head first, a checksum of all of it last.

    {"moorage":"session","version":1,"exported":1763700000.5,"seq":17,"head":{…}}
    {"entry":{"seq":1,"at":1763700000.1,"kind":"artifact","body":{"sha256":"…",…}}}
    {"blob":{"sha256":"…","size":70000,"offset":0,"data":"…"}}
    {"end":{"entries":17,"blobs":1,"sha256":"…"}}

Entries stand in their order, and behind each the blobs that go with it, by their digests, each in
as many lines as it takes; one whose bytes are lost says that they are `missing`. The checksum
covers all lines before the last one: it is the SHA-256 of the checksum up to a line, as 32 bytes,
and that line with its end; before the first line it is 32 zeros.
"""

import hashlib
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.structs import replace

from moorage_daemon.store.model import ArtifactBody, Entry, Kind, UploadBody
from moorage_daemon.store.naming import digests_in


VERSION = 1
MAX_LINE = 16 * 2**20  # bytes: a prompt as large as a frame, with all its quotes escaped

MIN_WINDOW = 64  # tokens; with fewer no model answers

START = "0" * 64  # the checksum of no lines

FOREIGN = "a3s"  # the kind of entries with what came out of that layout and has no place here

OF_BYTES: dict[str, type[ArtifactBody] | type[UploadBody]] = {
    Kind.ARTIFACT: ArtifactBody,
    Kind.UPLOAD: UploadBody,
}

_WORDS = {FOREIGN, *Kind} - OF_BYTES.keys()

S = TypeVar("S")

Number = Annotated[int, Meta(ge=1, le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Time = Annotated[float, Meta(ge=0, lt=253_402_300_800)]  # until the year 9999, as it is written
Amount = Annotated[int, Meta(ge=0, le=10**12)]  # tokens of one answer of a model
Sum = Annotated[int, Meta(ge=0, le=10**15)]  # tokens of many, or micros
Window = Annotated[int, Meta(ge=MIN_WINDOW, le=10**12)]  # tokens
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class HeaderLine(Struct, frozen=True):
    moorage: str
    version: int
    head: Raw
    seq: Count
    exported: float = 0.0


class EntryRecord(Struct, frozen=True, omit_defaults=True):
    """An entry, its body byte for byte: as it is, or in base64 if it is no one line of JSON."""

    seq: Number
    at: Time
    kind: Annotated[str, Meta(min_length=1, max_length=64)]
    generation: Number | None = None
    body: Raw | UnsetType = UNSET
    base64: bytes | UnsetType = UNSET

    @classmethod
    def of(cls, entry: Entry) -> "EntryRecord":
        """What is written of an entry; whose connection its words came in on stays behind."""
        record = cls(entry.seq, entry.at, entry.kind, entry.generation)
        if _fits_a_line(entry.body):
            return replace(record, body=Raw(entry.body))
        return replace(record, base64=entry.body)

    @property
    def content(self) -> bytes | None:
        """The body; None if it is missing."""
        if isinstance(self.body, Raw):
            return bytes(self.body)
        return None if self.base64 is UNSET else self.base64


def _fits_a_line(body: bytes) -> bool:
    """Whether that is JSON without anything around it or a line end within it."""
    if b"\n" in body or b"\r" in body:
        return False
    try:
        body.decode()
        return bytes(msgspec.json.decode(body, type=Raw)) == body
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


class BlobRecord(Struct, frozen=True, omit_defaults=True):
    """A piece of a blob, in base64."""

    sha256: Digest
    size: Count
    offset: Count
    data: bytes
    missing: bool = False


class EndRecord(Struct, frozen=True):
    entries: Count
    blobs: Count
    sha256: Digest


def blobs_behind(kind: str, body: bytes) -> frozenset[str]:
    """The digests of the blobs that go with an entry: an artifact's, an upload's, and what a kind
    names that is not known here.

    What people and models say names nothing, however it looks: else who knows a digest could have
    the bytes, which may be somebody else's, by saying it.
    """
    if kind not in OF_BYTES:
        return frozenset() if kind in _WORDS else digests_in(body)
    try:
        return frozenset({msgspec.json.decode(body, type=OF_BYTES[kind]).sha256})
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return frozenset()  # of a newer version, or damaged


def size_said(kind: str, body: bytes) -> int | None:
    """How long an entry says that its blob is; None where it says nothing."""
    if kind not in OF_BYTES:
        return None
    try:
        return msgspec.json.decode(body, type=OF_BYTES[kind]).size
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # of a newer version, or damaged


class Line(Struct, frozen=True, omit_defaults=True):
    """Any line but the first: one of these is set."""

    entry: EntryRecord | None = None
    blob: BlobRecord | None = None
    end: EndRecord | None = None


class BadLine(Exception):
    """A line is not what it has to be; the text says why, without the line."""


def write(line: Struct) -> bytes:
    """A line, with its end."""
    return msgspec.json.encode(line) + b"\n"


def chained(digest: str, line: bytes) -> str:
    """The checksum with one more line; it can be carried along, which a plain one cannot."""
    return hashlib.sha256(bytes.fromhex(digest) + line).hexdigest()


def read(line: bytes, shape: type[S]) -> S:
    """Read a line; raises `BadLine`."""
    try:
        return msgspec.json.decode(line, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine(f"not what a line says: {error}") from error

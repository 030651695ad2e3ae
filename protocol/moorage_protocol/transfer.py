"""Taking a session out of a daemon and into another one, as a stream of bytes.

The stream is a file of lines of JSON; what stands in them is the daemons' affair. A client that
keeps or brings it need not look inside: it writes down, or sends, one part after the other.
"""

from moorage_protocol.acp import SessionParams, Shape


MAX_PART = 512 * 2**10  # bytes of one part; in base64 it still fits a message under 1 MiB


class ExportParams(SessionParams, frozen=True):
    """`cursor` is what the part before said; absent for the first one."""

    cursor: str | None = None


class ExportResult(Shape, frozen=True):
    """A part of the file, in base64; `next` is absent with the last one."""

    data: bytes
    next: str | None = None


class ImportBeginParams(Shape, frozen=True):
    """`keep_id` asks for the session's own id, which must be free; else it gets a new one.

    `keep_allowed` takes over the rules by which its tools may act unasked: else none of them.
    """

    keep_id: bool = False
    keep_allowed: bool = False


class ImportBegun(Shape, frozen=True):
    import_id: str
    max_part: int


class ImportPartParams(Shape, frozen=True):
    """The next bytes, in base64; `offset` is how many came before them."""

    import_id: str
    offset: int
    data: bytes


class ImportedSoFar(Shape, frozen=True, omit_defaults=False):
    offset: int


class ImportFinishParams(Shape, frozen=True):
    import_id: str


class Imported(Shape, frozen=True, omit_defaults=False):
    """The session is there. `notes` say what of it could not be taken over as it was."""

    session_id: str
    entries: int
    blobs: int
    notes: list[str]

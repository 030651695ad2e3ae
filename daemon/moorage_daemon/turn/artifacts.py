"""What a tool said that is too long for the log: kept as an artifact, and shown by its two ends.

The bytes are durable before the entry that names them, so an address that stands in the log can
always be followed.
"""

import logging
from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

import msgspec
from msgspec.structs import replace

from moorage_daemon.store.port import Blob, StoreError
from moorage_daemon.tools.port import Report


logger = logging.getLogger(__name__)

SHOWN = 128 * 2**10  # characters of a tool's text in an update: escaped it fits one message
MAX_ARTIFACT = 16 * 2**20  # bytes; a command's output is bounded far below
_PIECE = 2**18  # characters encoded at once


class Blobs(Protocol):
    """Where bytes are kept by their digest."""

    async def put_blob(
        self, chunks: AsyncIterable[bytes], *, max_bytes: int, sha256: str | None = None
    ) -> Blob:
        """Keep bytes, durably; see the store's port."""
        ...


class Kept(msgspec.Struct, frozen=True):
    """A report whose text is a part of what is kept."""

    report: Report
    blob: Blob

    def named(self, address: str) -> Report:
        """The report as it is shown and read: both ends, and where the rest is."""
        text = f"{excerpt(self.report.text)}\n[all {self.blob.size:,} bytes: {address}]"
        return replace(self.report, text=text, whole=None)


async def keep(report: Report, blobs: Blobs) -> Kept | None:
    """Keep what a report cannot show; None if it shows all, or if there is no room to keep it."""
    whole = report.whole
    if whole is None:
        if len(report.text) <= SHOWN:
            return None
        whole = report.text
    try:
        return Kept(report, await blobs.put_blob(_pieces(whole), max_bytes=MAX_ARTIFACT))
    except StoreError:
        logger.exception("a long output cannot be kept: only its ends are shown")
        return None


async def _pieces(text: str) -> AsyncIterator[bytes]:
    for start in range(0, len(text), _PIECE):
        yield text[start : start + _PIECE].encode(errors="replace")


def excerpt(text: str) -> str:
    """The text, or its two ends and how much lies between."""
    if len(text) <= SHOWN:
        return text
    half = SHOWN // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"

"""Taking files out of daemons and into them, as a client does, and making files that are wrong."""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from moorage_protocol.transfer import (
    ExportResult,
    ImportBegun,
    Imported,
    ImportedSoFar,
)
from tests.daemon.twin import Client, Json


async def exported(client: Client, session: str) -> bytes:
    """The whole file of a session."""
    return b"".join([part async for part in parts_of(client, session)])


async def parts_of(client: Client, session: str) -> AsyncIterator[bytes]:
    cursor: str | None = None
    while True:
        params: Json = {"sessionId": session, "cursor": cursor}
        part = await client.call("_moorage/session/export", params, ExportResult)
        yield part.data
        if part.next is None:
            return
        cursor = part.next


async def begin(client: Client, **wish: Any) -> str:
    return (await client.call("_moorage/import/begin", wish, ImportBegun)).import_id


async def send(client: Client, import_id: str, data: bytes, offset: int = 0) -> int:
    """Send the next bytes; gives how many have come."""
    text = base64.b64encode(data).decode()
    params: Json = {"importId": import_id, "offset": offset, "data": text}
    return (await client.call("_moorage/import/part", params, ImportedSoFar)).offset


async def finish(client: Client, import_id: str) -> Imported:
    return await client.call("_moorage/import/finish", {"importId": import_id}, Imported)


async def imported(client: Client, file: bytes, *, step: int = 300_000, **wish: Any) -> Imported:
    """Bring a file in, in parts of so many bytes."""
    import_id = await begin(client, **wish)
    for start in range(0, len(file), step):
        await send(client, import_id, file[start : start + step], start)
    return await finish(client, import_id)


def lines_of(file: bytes) -> list[Json]:
    return [msgspec.json.decode(line) for line in file.splitlines()]


def file_of(lines: Sequence[Json]) -> bytes:
    """A file with such lines, and the end that belongs to them."""
    written = [msgspec.json.encode(line) + b"\n" for line in lines if "end" not in line]
    digest = bytes(32)
    for line in written:
        digest = hashlib.sha256(digest + line).digest()
    count = sum("entry" in line for line in lines)
    blobs = [line["blob"] for line in lines if "blob" in line]
    whole = sum(_is_last(blob) for blob in blobs)
    end = {"end": {"entries": count, "blobs": whole, "sha256": digest.hex()}}
    return b"".join(written) + msgspec.json.encode(end) + b"\n"


def _is_last(blob: Json) -> bool:
    """Whether this is the last line of a blob."""
    held = len(base64.b64decode(blob["data"]))
    return bool(blob.get("missing")) or blob["offset"] + held == blob["size"]


def changed(file: bytes, change: Callable[[list[Json]], object]) -> bytes:
    """The file after a change of its lines, with a checksum that fits."""
    lines = lines_of(file)
    change(lines)
    return file_of(lines)

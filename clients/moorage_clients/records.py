"""What a daemon says of a session beside its turns: how it is set up, what it took and made, and
the session itself as a file.

    async for part in exported(client, session_id):
        file.write(part)
"""

from collections.abc import AsyncGenerator, AsyncIterable

from moorage_clients.client import Client
from moorage_protocol.acp import SessionParams
from moorage_protocol.config import ConfigResult, ConfigSetParams, ConfigShown, ConfigWish
from moorage_protocol.errors import InvalidParams
from moorage_protocol.transfer import (
    ExportParams,
    ExportResult,
    ImportBeginParams,
    ImportBegun,
    Imported,
    ImportedSoFar,
    ImportFinishParams,
    ImportPartParams,
)
from moorage_protocol.views import (
    ArtifactParams,
    ArtifactResult,
    ArtifactRow,
    ArtifactsResult,
    CostRow,
    PageParams,
    ReportsResult,
    TracesResult,
    UsageResult,
)


PAGE = 1000  # rows asked for at once


# ---- how it is set up


async def config(client: Client, session_id: str) -> ConfigShown:
    """How a session is set up."""
    params = SessionParams(session_id=session_id)
    return (await client.call("_moorage/session/config/get", params, ConfigResult)).config


async def set_config(client: Client, session_id: str, wish: ConfigWish) -> ConfigShown:
    """Change that, all of it or nothing; raises `InvalidParams` that names what is wrong."""
    params = ConfigSetParams(session_id=session_id, config=wish)
    return (await client.call("_moorage/session/config/set", params, ConfigResult)).config


# ---- what it took and made


async def usage(client: Client, session_id: str, after: int = 0, limit: int = 100) -> UsageResult:
    """What a session took, and a page of the answers that took it."""
    params = PageParams(session_id=session_id, after=after, limit=limit)
    return await client.call("_moorage/session/usage", params, UsageResult)


async def cost_rows(client: Client, session_id: str) -> AsyncGenerator[CostRow, None]:
    """Every answer of a model, page by page."""
    after: int | None = 0
    while after is not None:
        page = await usage(client, session_id, after, PAGE)
        for row in page.records:
            yield row
        after = page.next


async def traces(client: Client, session_id: str, after: int = 0, limit: int = 100) -> TracesResult:
    """A page of how tool calls ended."""
    params = PageParams(session_id=session_id, after=after, limit=limit)
    return await client.call("_moorage/session/traces", params, TracesResult)


async def reports(
    client: Client, session_id: str, after: int = 0, limit: int = 100
) -> ReportsResult:
    """A page of what was verified."""
    params = PageParams(session_id=session_id, after=after, limit=limit)
    return await client.call("_moorage/session/reports", params, ReportsResult)


async def artifacts(client: Client, session_id: str) -> AsyncGenerator[ArtifactRow, None]:
    """Every artifact, page by page."""
    after: int | None = 0
    while after is not None:
        params = PageParams(session_id=session_id, after=after, limit=PAGE)
        page = await client.call("_moorage/session/artifacts", params, ArtifactsResult)
        for row in page.artifacts:
            yield row
        after = page.next


async def artifact(client: Client, uri: str) -> AsyncGenerator[bytes, None]:
    """The bytes of an artifact, part by part; raises `NotFound`."""
    offset, size = 0, 1
    while offset < size:
        params = ArtifactParams(uri=uri, offset=offset)
        part = await client.call("_moorage/artifact/get", params, ArtifactResult)
        yield part.data
        offset, size = offset + len(part.data), part.size if part.data else 0


# ---- the session as a file


async def exported(client: Client, session_id: str) -> AsyncGenerator[bytes, None]:
    """The file of a session, part by part: the session as it is now, whatever happens meanwhile."""
    cursor: str | None = None
    while True:
        params = ExportParams(session_id=session_id, cursor=cursor)
        part = await client.call("_moorage/session/export", params, ExportResult)
        yield part.data
        if part.next is None:
            return
        cursor = part.next


async def imported(
    client: Client,
    chunks: AsyncIterable[bytes],
    *,
    keep_id: bool = False,
    keep_allowed: bool = False,
) -> Imported:
    """Bring a file in; nothing of it stays unless this returns.

    Raises `InvalidParams` that names the line at fault.
    """
    wish = ImportBeginParams(keep_id=keep_id, keep_allowed=keep_allowed)
    begun = await client.call("_moorage/import/begin", wish, ImportBegun)
    offset, waiting = 0, bytearray()

    async def send(data: bytes) -> int:
        params = ImportPartParams(import_id=begun.import_id, offset=offset, data=data)
        return (await client.call("_moorage/import/part", params, ImportedSoFar)).offset

    async for chunk in chunks:
        waiting += chunk
        while len(waiting) >= begun.max_part:
            offset = await send(bytes(waiting[: begun.max_part]))
            del waiting[: begun.max_part]
    if waiting:
        offset = await send(bytes(waiting))
    if offset == 0:
        raise InvalidParams("Invalid params: the file is empty")
    finish = ImportFinishParams(import_id=begun.import_id)
    return await client.call("_moorage/import/finish", finish, Imported)

"""The MCP servers that a client names for a session.

Only such as are started as a program are taken: the Agent Client Protocol asks that of everybody,
and what else there is was never advertised. They are kept in memory alone, as they may carry keys.
"""

from collections.abc import Sequence

import msgspec

from moorage_protocol import lenient
from moorage_protocol.acp import McpServer, Shape
from moorage_protocol.errors import InvalidParams


MAX_SERVERS = 64
MAX_BYTES = 64 * 2**10  # of all of them: they are in memory while their session is
REMOTE = frozenset({"http", "sse", "acp"})


class _Kind(Shape, frozen=True):
    type: str | None = None


def named_servers(given: Sequence[msgspec.Raw] | None) -> tuple[McpServer, ...]:
    """The servers as they were named; raises `InvalidParams` for what cannot be taken."""
    raws = [bytes(raw) for raw in given or ()]
    if len(raws) > MAX_SERVERS or sum(map(len, raws)) > MAX_BYTES:
        raise InvalidParams(f"Invalid params: mcpServers: at most {MAX_SERVERS}, {MAX_BYTES} bytes")
    for raw in raws:
        kind = lenient.decode(raw, _Kind).type
        if kind in REMOTE:
            raise InvalidParams(f"Invalid params: mcpServers: {kind} is not supported")
    return tuple(lenient.decode(raw, McpServer) for raw in raws)

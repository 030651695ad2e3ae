"""A user's words: what they mean as text, and what they look like in the transcript.

Every message fits the smallest message limit among widely used clients, so a long prompt is
several of them.
"""

from collections.abc import Sequence

import msgspec

from moorage_protocol import lenient
from moorage_protocol.acp import (
    Audio,
    ContentBlock,
    Image,
    McpServer,
    Resource,
    ResourceLink,
    Text,
    ToolCall,
    ToolCallStatus,
    ToolContent,
    ToolKind,
    UserMessageChunk,
)
from moorage_protocol.jsonrpc import encode


def user_chunks(content: list[msgspec.Raw], generation: int) -> list[bytes]:
    """The prompt as updates, block by block; long text in pieces that fit one message."""
    message = encode(f"{generation}-user")
    chunks: list[bytes] = []
    for block in content:
        if len(bytes(block)) <= _PIECE:
            chunks.append(_USER_CHUNK % (bytes(block), message))
        else:
            chunks += _split(block, f"{generation}-user")
    return chunks


_USER_CHUNK = b'{"sessionUpdate":"user_message_chunk","content":%b,"messageId":%b}'
_PIECE = 768 * 2**10  # bytes of one block in a message that stays under 1 MiB


def _split(block: msgspec.Raw, message: str) -> list[bytes]:
    """A long text in pieces; of a long file the link, as no client takes it in one message."""
    found = msgspec.json.decode(block, type=Text | Resource)
    if isinstance(found, Resource):
        uri = msgspec.json.decode(found.resource, type=_Named).uri
        link = ResourceLink(uri=uri, name=uri, size=len(bytes(block)))
        return [encode(UserMessageChunk(content=link, message_id=message))]
    step = _PIECE // 6  # a character escapes to at most six bytes
    return [
        encode(UserMessageChunk(content=Text(text=found.text[at : at + step]), message_id=message))
        for at in range(0, len(found.text), step)
    ]


class _Named(msgspec.Struct, frozen=True):
    uri: str = ""


def unused_servers(servers: Sequence[McpServer], agent: str, generation: int) -> ToolCall:
    """What a user reads who named MCP servers to an agent that calls none."""
    names = ", ".join(server.name[:MAX_SERVER_NAME] for server in servers[:MAX_SERVER_NAMES])
    more = " …" if len(servers) > MAX_SERVER_NAMES else ""
    words = f"The agent {agent} calls no tools of MCP servers; what they offer is not available."
    return ToolCall(
        tool_call_id=f"servers-{generation}",
        title=f"MCP servers are not connected: {names}{more}",
        kind=ToolKind.OTHER,
        status=ToolCallStatus.FAILED,
        content=[ToolContent(content=Text(text=words))],
    )


MAX_SERVER_NAMES = 10
MAX_SERVER_NAME = 100  # characters


def text_of(block: ContentBlock) -> str:
    """What a block says to a model that reads text; raises `InvalidParams` if it is malformed."""
    match block:
        case Text():
            return block.text
        case ResourceLink():
            return block.uri
        case Resource():
            resource = lenient.decode(block.resource, _TextResource)
            return resource.text or resource.uri
        case Image() | Audio():
            return ""


class _TextResource(msgspec.Struct, frozen=True):
    uri: str = ""
    text: str = ""

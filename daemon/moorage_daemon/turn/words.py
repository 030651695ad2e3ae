"""A user's words: what they mean as text, and what they look like in the transcript.

Every message fits the smallest message limit among widely used clients, so a long prompt is
several of them.
"""

import msgspec

from moorage_protocol import lenient
from moorage_protocol.acp import (
    Audio,
    ContentBlock,
    Image,
    Resource,
    ResourceLink,
    Text,
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

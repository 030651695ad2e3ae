"""What of a prompt is kept and shown: all of it but the blocks that are marked as secret.

A block is marked by `_meta.moorage.secret`. Its text is for the agent, while its turn waits and
runs, and for nobody else: wherever the prompt is written or told a mark stands in its place.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from moorage_daemon.agents.port import Prompt
from moorage_daemon.scrubbing import MIN_SECRET, Scrubber
from moorage_daemon.turn.words import text_of
from moorage_protocol import lenient
from moorage_protocol.acp import (
    Audio,
    ContentBlock,
    Image,
    Meta,
    Resource,
    ResourceLink,
    Shape,
    Text,
)
from moorage_protocol.errors import InvalidParams
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import BlockMeta, SecretText


S = TypeVar("S", bound=msgspec.Struct)

MARK = "[secret]"

MAX_SECRETS = 16 * 2**10  # characters of all secrets of a prompt; a long key has 3,000
MAX_LINES = 128  # of them; each is looked for in all that the turn says
MAX_PROMPT = 512 * 2**10  # bytes of a prompt with secrets: it is read twice, in one go


class Shown(msgspec.Struct, frozen=True):
    """A prompt as it is kept: its blocks, what they say, and what else its client attached."""

    content: list[msgspec.Raw]
    text: str
    meta: msgspec.Raw | None = None


def read_prompt(content: Sequence[msgspec.Raw], meta: msgspec.Raw | None = None) -> Prompt:
    """What the blocks of a prompt mean.

    Raises `InvalidParams` for blocks that are not served, and for marks that cannot be heeded.
    """
    blocks = [lenient.decode(b'{"block":%b}' % bytes(raw), _Block).block for raw in content]
    for block in blocks:
        if isinstance(block, Image | Audio):
            raise InvalidParams("Invalid params: prompt: images and audio are not supported")
    text = "\n".join(text_of(block) for block in blocks).strip()
    if not text:
        raise InvalidParams("Invalid params: prompt is blank")
    secrets = [_secret(raw, block) for raw, block in zip(content, blocks, strict=True)]
    prompt = Prompt(blocks, text, meta, tuple(s for s in secrets if s is not None))
    if prompt.secrets:
        _check(prompt.secrets, content)
    return prompt


class _Block(msgspec.Struct, frozen=True):
    block: ContentBlock


class _Marked(Shape, frozen=True):
    meta: Meta[BlockMeta] | None = msgspec.field(name="_meta", default=None)


def _secret(raw: msgspec.Raw, block: ContentBlock) -> str | None:
    """The text of a block that is marked, None if it is not."""
    if isinstance(block, Resource) and _is_marked(block.resource):
        raise _refused("only the text of a text block can be a secret")
    if not _is_marked(raw):
        return None
    if not isinstance(block, Text):
        raise _refused("only the text of a text block can be a secret")
    return block.text


def _is_marked(raw: msgspec.Raw) -> bool:
    meta = lenient.decode(raw, _Marked).meta
    return meta is not None and isinstance(meta.moorage, BlockMeta) and meta.moorage.secret


def _check(secrets: Sequence[str], content: Sequence[msgspec.Raw]) -> None:
    if any(len(secret.strip()) < MIN_SECRET for secret in secrets):
        raise _refused(f"a secret must have at least {MIN_SECRET} characters")
    if any(MARK in secret for secret in secrets):
        raise _refused(f"{MARK} stands for a secret and is none")
    if sum(map(len, secrets)) > MAX_SECRETS:
        raise _refused(f"its secrets may have {MAX_SECRETS} characters")
    if sum(len(secret.splitlines()) for secret in secrets) > MAX_LINES:
        raise _refused(f"its secrets may have {MAX_LINES} lines")
    if sum(len(bytes(raw)) for raw in content) > MAX_PROMPT:
        raise _refused(f"with a secret it may have {MAX_PROMPT} bytes")


def _refused(problem: str) -> InvalidParams:
    return InvalidParams(f"Invalid params: prompt: {problem}")


def must_not_be_in(text: str, secrets: Sequence[str]) -> None:
    """Raise `InvalidParams` for a prompt's id that holds one of its secrets: ids are kept."""
    if secrets and Scrubber(dict.fromkeys(secrets, MARK)).is_in(text):
        raise InvalidParams("Invalid params: promptId holds a secret")


def as_shown(content: list[msgspec.Raw], prompt: Prompt) -> Shown:
    """The prompt without its secrets, wherever in it they stand; `content` are its blocks."""
    if not prompt.secrets:
        return Shown(content, prompt.text, prompt.meta)
    scrubber = Scrubber(dict.fromkeys(prompt.secrets, MARK))
    blocks = [
        _block(raw, block, scrubber) for raw, block in zip(content, prompt.blocks, strict=True)
    ]
    shown = [msgspec.json.decode(raw, type=ContentBlock) for raw in blocks]
    text = "\n".join(text_of(block) for block in shown).strip()
    meta = None if prompt.meta is None else scrubber.scrub_json(bytes(prompt.meta))
    return Shown(blocks, scrubber.scrub(text), None if meta is None else msgspec.Raw(meta))


def _block(raw: msgspec.Raw, block: ContentBlock, scrubber: Scrubber) -> msgspec.Raw:
    """A block without secrets; of one that holds some, only what is known of it."""
    if _is_marked(raw):
        return msgspec.Raw(encode(SecretText(text=MARK)))
    if scrubber.scrub_json(bytes(raw)) == bytes(raw):
        return raw
    match block:
        case Text():
            return msgspec.Raw(encode(Text(text=scrubber.scrub(block.text))))
        case ResourceLink():
            return msgspec.Raw(encode(_without(block, scrubber)))
        case Resource():
            known = lenient.decode(block.resource, _Embedded)
            inner = msgspec.Raw(encode(_without(known, scrubber)))
            return msgspec.Raw(encode(Resource(resource=inner)))
        case Image() | Audio():
            raise AssertionError("they are not served")


class _Embedded(Shape, frozen=True):
    uri: str = ""
    text: str | UnsetType = UNSET
    blob: str | UnsetType = UNSET
    mime_type: str | UnsetType = UNSET


def _without(found: S, scrubber: Scrubber) -> S:
    """The same with no secret in any of its texts."""
    texts = {name: getattr(found, name) for name in found.__struct_fields__}
    return replace(
        found, **{name: scrubber.scrub(t) for name, t in texts.items() if isinstance(t, str)}
    )

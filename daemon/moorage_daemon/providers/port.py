"""What a provider is to an agent: a conversation goes in, a stream of pieces comes out."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from moorage_daemon.provider_settings import ProviderSettings


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True)
class Message:
    """One contribution to a conversation."""

    role: Role
    text: str


@dataclass(frozen=True)
class Request:
    """What a model is asked; None leaves it to the provider.

    `max_tokens` is how long the answer may be, what the model thinks included.
    """

    model: str
    messages: Sequence[Message]
    temperature: float | None = None
    max_tokens: int | None = None


class Ending(StrEnum):
    """Why a model stopped."""

    DONE = "done"
    TOO_LONG = "too_long"
    REFUSED = "refused"


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer, as the provider counts them; the last two are part of the others."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True)
class Said:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Thought:
    """A piece of reasoning that the provider shows."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The end of an answer; `usage` is None where the provider did not tell."""

    ending: Ending
    usage: Usage | None = None


Piece = Said | Thought | Finished


class Provider(Protocol):
    """Speaks to models in one place. One object serves all turns at once."""

    @property
    def settings(self) -> ProviderSettings:
        """What the user said about it."""
        ...

    def stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Piece]]:
        """Ask a model; leaving ends the answer at once, whether or not it was heard to its end.

        The pieces end with one `Finished`. Entering and iterating raise `ProviderFailed`, and
        wait only as long as the settings allow; the time between two pieces that the caller takes
        does not count.
        """
        ...

"""Chat completions as OpenAI's API has them, without the network: what is asked, what is meant.

Many servers speak it, each a little differently: some do not count tokens, some end the stream
without `[DONE]`, some put an error into it. All of that is read here, by what it says and not by
who says it.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from moorage_daemon.providers.failures import (
    AuthFailed,
    BadAnswer,
    ProviderFailed,
    RateLimited,
    Unavailable,
)
from moorage_daemon.providers.port import Ending, Finished, Piece, Request, Said, Thought, Usage


DONE = b"[DONE]"

# what the decoder says of broken syntax, shape, UTF-8, and of brackets without end
_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# ---- what is asked


class _Message(Struct, frozen=True):
    role: str
    content: str


class _StreamOptions(Struct, frozen=True):
    include_usage: bool


class _Body(Struct, frozen=True, omit_defaults=True):
    model: str
    messages: list[_Message]
    stream: bool
    temperature: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: _StreamOptions | None = None


def encode_request(request: Request, *, asks_usage: bool, has_new_limit: bool = False) -> bytes:
    """The body of a request; some servers know nothing of asking for usage and refuse it.

    How long an answer may be has a new name, which few servers know and some models insist on.
    """
    return msgspec.json.encode(
        _Body(
            model=request.model,
            messages=[_Message(message.role, message.text) for message in request.messages],
            stream=True,
            temperature=request.temperature,
            max_tokens=None if has_new_limit else request.max_tokens,
            max_completion_tokens=request.max_tokens if has_new_limit else None,
            stream_options=_StreamOptions(include_usage=True) if asks_usage else None,
        )
    )


# ---- what is answered


class _Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None  # vLLM, llama.cpp
    reasoning: str | None = None  # Ollama, OpenRouter
    refusal: str | None = None


class _Choice(Struct, frozen=True):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(Struct, frozen=True):
    """The details are read apart: servers make up their own, and no answer fails for those."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Raw | UnsetType = UNSET
    completion_tokens_details: Raw | UnsetType = UNSET

    def read(self) -> Usage:
        asked, answered = (
            _details(self.prompt_tokens_details),
            _details(self.completion_tokens_details),
        )
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            cache_read_tokens=min(asked.cached_tokens, self.prompt_tokens),
            reasoning_tokens=min(answered.reasoning_tokens, self.completion_tokens),
        )


class _Details(Struct, frozen=True):
    cached_tokens: Annotated[int, Meta(ge=0)] = 0
    reasoning_tokens: Annotated[int, Meta(ge=0)] = 0


def _details(said: Raw | UnsetType) -> _Details:
    if not isinstance(said, Raw):
        return _Details()
    try:
        return msgspec.json.decode(said, type=_Details)
    except msgspec.ValidationError:
        return _Details()


class _Chunk(Struct, frozen=True):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Raw | UnsetType = UNSET
    object: str | None = None


def _is_error(chunk: _Chunk) -> bool:
    said = isinstance(chunk.error, Raw) and bytes(chunk.error) != b"null"
    return said or chunk.object == "error"


_decode_chunk = msgspec.json.Decoder(_Chunk).decode

_ENDINGS = {"length": Ending.TOO_LONG, "content_filter": Ending.REFUSED}  # anything else is done


class Reading:
    """What was read of one answer. `is_over` is set when nothing more can come."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self.is_over = False
        self._usage: Usage | None = None
        self._has_refused = False

    def take(self, event: bytes) -> list[Piece]:
        """The pieces in one event; raises `ProviderFailed` for an error, and for no chunk."""
        if event == DONE:
            self.is_over = True
            return []
        try:
            chunk = _decode_chunk(event)
        except _NOT_JSON:
            raise BadAnswer("an event is not a chunk of a chat completion") from None
        if _is_error(chunk):
            raise failure_in_answer(event)
        if chunk.usage is not None:
            self._usage = chunk.usage.read()
        pieces: list[Piece] = []
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._read(choice, pieces)
        return pieces

    def _read(self, choice: _Choice, pieces: list[Piece]) -> None:
        if choice.finish_reason is not None:
            self.ending = _ENDINGS.get(choice.finish_reason, Ending.DONE)
        delta = choice.delta
        if delta is None:
            return
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            pieces.append(Thought(thought))
        if delta.content:
            pieces.append(Said(delta.content))
        if delta.refusal:
            self._has_refused = True
            pieces.append(Said(delta.refusal))

    def finish(self) -> Finished:
        """The end of the answer, when no more events come; raises `BadAnswer` if it was cut."""
        if self.ending is None and not self.is_over:
            raise BadAnswer("the answer was cut", may_pass=True)
        ending = Ending.REFUSED if self._has_refused else self.ending or Ending.DONE
        return Finished(ending, self._usage)


# ---- what went wrong


class _Error(Struct, frozen=True):
    code: int | str | None = None
    type: str | None = None


def is_error(body: bytes) -> bool:
    """Whether what came instead of an answer says that it is an error."""
    try:
        return _is_error(_decode_chunk(body))
    except _NOT_JSON:
        return False


class _Problem(Struct, frozen=True):
    """Errors come under `error`, as an object or a mere sentence, or bare (vLLM)."""

    error: _Error | str | UnsetType | None = UNSET
    code: int | str | None = None
    type: str | None = None


_WORD = re.compile(r"[a-z][a-z_]{0,39}|[A-Z][A-Z_]{0,39}")  # keys have digits, or letters mixed
_NO_CREDIT = "insufficient_quota"


def failure_of_status(status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailed:
    """What an answer with that status means; of its body only a checked word is repeated."""
    return _failure(status, _word(_problem(body)), _retry_after(headers))


def failure_in_answer(body: bytes) -> ProviderFailed:
    """What an error means that came as an answer, or within one."""
    found = _problem(body)
    word = _word(found)
    return _failure(_status(found.code) or _status_of(word), word, None)


def _status(code: int | str | None) -> int | None:
    """A code that is a status."""
    known = {str(status): status for status in range(400, 600)}
    return known.get(str(code))


def _problem(body: bytes) -> _Error:
    try:
        found = msgspec.json.decode(body, type=_Problem)
    except _NOT_JSON:
        return _Error()
    if isinstance(found.error, _Error):
        return found.error
    return _Error(found.code, found.type)


def _word(error: _Error) -> str:
    """The first word for it that can be no key, as it came: in other letters whoever looks for the
    secrets of a prompt would not know one again."""
    for word in (error.code, error.type):
        if isinstance(word, str) and _WORD.fullmatch(word):
            return word
    return ""


def _status_of(word: str) -> int:
    """The status that an error without one would have had."""
    word = word.lower()
    if "rate_limit" in word or word == _NO_CREDIT:
        return 429
    if "authentication" in word or "api_key" in word or "permission" in word:
        return 401
    return 400 if "invalid" in word or "not_found" in word else 500


def _failure(status: int, word: str, retry_after: float | None) -> ProviderFailed:
    problem = f"it answered {status} {word}".rstrip()
    match status:
        case 401 | 403:
            return AuthFailed(problem)
        case 402:
            return RateLimited(problem)
        case 429:
            return RateLimited(
                problem, may_pass=word.lower() != _NO_CREDIT, retry_after=retry_after
            )
        case 408 | 425:
            return Unavailable(problem, may_pass=True)
        case _ if status >= 500:
            return Unavailable(problem, may_pass=True, retry_after=retry_after)
        case _ if 300 <= status < 400:
            return BadAnswer(f"{problem}: base_url has to be where it points, none is followed")
        case _:
            return BadAnswer(problem)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from now (RFC 9110, Retry-After); None for nonsense."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        return _seconds_until(text)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(date: str) -> float | None:
    try:
        at = parsedate_to_datetime(date)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())

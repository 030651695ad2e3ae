"""A grant and its spend: what may be done, and what was.

The grant never changes; what was used is counted beside it. `tools` has no default on purpose:
that everything is allowed has to be written (None), and an empty list is nothing, wherever it
comes from and however often it was stored.
"""

import math
import re
from collections.abc import Iterator

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from moorage_daemon.grants.credentials import is_name
from moorage_daemon.grants.moments import Moment, milliseconds_between
from moorage_daemon.grants.rules import BadRule, read_rule
from moorage_protocol.grants import MAX_TIME, MIN_TIME, Budget, RateLimit, Sensitivity


AXES = ("calls", "tokens", "micros")

MAX_INTENT = 512  # characters
MAX_TOOLS = 256  # rules
MAX_TOOLS_TEXT = 16 * 2**10  # characters of all of them: a grant is kept in memory
MAX_CREDENTIALS = 64
MAX_DEPTH = 10  # of delegation; every level is looked at in each decision
USUAL_DEPTH = 4
USUAL_TIME = 3600.0  # seconds
_AGENT = re.compile(r"[^\x00-\x1f\x7f]{1,200}")


class BadGrant(ValueError):
    """A grant that cannot be; one line names the field."""


class Hop(Struct, frozen=True, array_like=True):
    """One step of a delegation: the agent that delegated, and its grant."""

    agent: str
    grant: str


class Amount(Struct, frozen=True, omit_defaults=True):
    """So much of each axis."""

    calls: int = 0
    tokens: int = 0
    micros: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            self.calls + other.calls, self.tokens + other.tokens, self.micros + other.micros
        )

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(
            self.calls - other.calls, self.tokens - other.tokens, self.micros - other.micros
        )


class Grant(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may be done; made by `make_grant` and by delegation only.

    `tools` are rules, None is any tool. `time_limit` is milliseconds. `chain` is who delegated,
    the first one first; `depth` is how many more may.
    """

    agent: str
    tools: tuple[str, ...] | None
    time_limit: int
    intent: str = ""
    credentials: tuple[str, ...] = ()
    budget: Budget = Budget()
    rate: RateLimit | None = None
    ceiling: Sensitivity = Sensitivity.INTERNAL
    depth: int = USUAL_DEPTH
    chain: tuple[Hop, ...] = ()


class Spend(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was used. `elapsed` milliseconds of the time limit had passed at the moment `at`.

    `recent` is the limiter's memory; `refused` counts what was not permitted. What is held is for
    answers of models that are being given.
    """

    at: Moment
    elapsed: int = 0
    calls: int = 0
    tokens: int = 0
    micros: int = 0
    refused: int = 0
    recent: tuple[tuple[int, int], ...] = ()
    held_tokens: int = 0
    held_micros: int = 0

    @property
    def held(self) -> Amount:
        """What answers that are being given may take."""
        return Amount(tokens=self.held_tokens, micros=self.held_micros)

    @property
    def used(self) -> Amount:
        """All axes."""
        return Amount(self.calls, self.tokens, self.micros)

    def elapsed_at(self, now: Moment) -> int:
        """Milliseconds used of the time limit; never less than before."""
        return self.elapsed + milliseconds_between(self.at, now)

    def with_held_used(self) -> "Spend":
        """The same where nobody knows any more what became of what was held."""
        return replace(
            self,
            tokens=self.tokens + self.held_tokens,
            micros=self.micros + self.held_micros,
            held_tokens=0,
            held_micros=0,
        )

    def marked(self, now: Moment) -> "Spend":
        """The same, with the time used so far put down."""
        return replace(self, elapsed=self.elapsed_at(now), at=now)


def make_grant(
    *,
    agent: str,
    tools: tuple[str, ...] | None,
    intent: str = "",
    credentials: tuple[str, ...] = (),
    budget: Budget | None = None,
    rate: RateLimit | None = None,
    seconds: float = USUAL_TIME,
    ceiling: Sensitivity = Sensitivity.INTERNAL,
    depth: int = USUAL_DEPTH,
) -> Grant:
    """A grant as somebody wishes it, within bounds; raises `BadGrant`."""
    for problem in _problems(agent, tools, intent, credentials, depth):
        raise BadGrant(problem)
    return Grant(
        agent=agent,
        tools=tools,
        intent=intent,
        credentials=tuple(dict.fromkeys(credentials)),
        budget=checked_budget(budget or Budget()),
        rate=rate,
        time_limit=bounded_time(seconds),
        ceiling=ceiling,
        depth=depth,
    )


def _problems(
    agent: str,
    tools: tuple[str, ...] | None,
    intent: str,
    credentials: tuple[str, ...],
    depth: int,
) -> Iterator[str]:
    if not _AGENT.fullmatch(agent):
        yield "agent must be a name of 1 to 200 characters"
    if len(intent) > MAX_INTENT:
        yield f"intent must have at most {MAX_INTENT} characters"
    if not 0 <= depth <= MAX_DEPTH:
        yield f"depth must be from 0 to {MAX_DEPTH}"
    if len(credentials) > MAX_CREDENTIALS or not all(map(is_name, credentials)):
        yield f"credentials must be at most {MAX_CREDENTIALS} names"
    if tools is not None and len(tools) > MAX_TOOLS:
        yield f"tools must be at most {MAX_TOOLS} rules"
    if sum(map(len, tools or ())) > MAX_TOOLS_TEXT:
        yield f"tools must have at most {MAX_TOOLS_TEXT} characters"
    for tool in tools or ():
        try:
            read_rule(tool)
        except BadRule as error:
            yield f"tools: {error}"


def checked_budget(budget: Budget) -> Budget:
    """The budget, if all its amounts are possible; raises `BadGrant`."""
    try:
        return msgspec.convert(msgspec.to_builtins(budget), Budget)
    except msgspec.ValidationError as error:
        raise BadGrant("budget must be whole numbers of calls, tokens and micros") from error


def bounded_time(seconds: float) -> int:
    """A time limit in milliseconds: the one place where it gets its bounds."""
    if math.isnan(seconds):
        raise BadGrant("timeLimitSeconds must be a number")
    return round(min(max(seconds, MIN_TIME), MAX_TIME) * 1000)


def stored_grant(grant: Grant) -> Grant:
    """A grant that was read from somewhere, with its time in bounds whatever was written there."""
    return replace(grant, time_limit=bounded_time(grant.time_limit / 1000))

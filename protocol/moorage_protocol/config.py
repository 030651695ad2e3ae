"""How a session is set up, beside its overrides: what `_moorage/session/config/get` and `set` say.

A change is a patch: absent keeps, null goes back to the default, a value sets. Every value has a
bound here, so what is malformed is refused with its name and nothing of the patch is taken.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta as Bound, Raw, UnsetType

from moorage_protocol.acp import SessionParams, Shape


MAX_CONFIG = 32 * 2**10  # bytes of all of it: it is kept in memory for every session

DEFAULT_THRESHOLD = 0.80

Name = Annotated[str, Bound(max_length=200)]
Words = Annotated[str, Bound(max_length=16 * 2**10)]
Tokens = Annotated[int, Bound(ge=1, le=1_000_000_000)]
Fraction = Annotated[float, Bound(gt=0, le=1)]
Places = Annotated[int, Bound(ge=1, le=64)]
Seconds = Annotated[float, Bound(gt=0, le=31_536_000)]
Rule = Annotated[str, Bound(min_length=1, max_length=512)]
Rules = Annotated[tuple[Rule, ...], Bound(max_length=256)]
Names = Annotated[tuple[Annotated[str, Bound(min_length=1, max_length=200)], ...],
                  Bound(max_length=256)]  # fmt: skip
Labels = Annotated[
    dict[Annotated[str, Bound(min_length=1, max_length=64)], Annotated[str, Bound(max_length=256)]],
    Bound(max_length=32),
]


class PlanningMode(StrEnum):
    """Whether an agent plans before it acts."""

    AUTO = "auto"
    ENABLED = "enabled"
    DISABLED = "disabled"


class PermissionDefault(StrEnum):
    """What happens to a tool call that no rule is about."""

    ASK = "ask"
    DENY = "deny"
    ALLOW = "allow"


class Asked(StrEnum):
    """To whom a question is put."""

    CONTROLLERS = "controllers"  # to whoever is attached and may act
    OWNER = "owner"  # of these to the client that owns the session, and to no other


class OnTimeout(StrEnum):
    """What a question that nobody answered in time counts as."""

    REJECT = "reject"
    APPROVE = "approve"


class Permissions(Shape, frozen=True):
    """Rules over tool calls, like `Bash(cargo:*)`.

    Deny beats the others; of those that allow and ask the one that says more counts, and asks if
    they say the same. A default of None leaves what no rule is about to the session's mode.
    """

    deny: Rules = ()
    allow: Rules = ()
    ask: Rules = ()
    default: PermissionDefault | None = PermissionDefault.ASK


class Confirmation(Shape, frozen=True):
    """Who is asked, how long a question waits (None: until somebody answers), what its end means.

    That it approves has to be written, and is on record as such.
    """

    ask: Asked = Asked.CONTROLLERS
    timeout_seconds: Seconds | None = None
    on_timeout: OnTimeout = OnTimeout.REJECT


class Lanes(Shape, frozen=True):
    """How many tool calls of each kind may run at once."""

    control: Places = 2
    query: Places = 4
    execute: Places = 2
    generate: Places = 1


class Thinking(Shape, frozen=True):
    """A model is asked to reason before it answers, within so many tokens if that is said."""

    budget_tokens: Tokens | None = None


class SessionConfig(Shape, frozen=True):
    """The part of a configuration that is nothing else of the session as well.

    `max_context_length` is in tokens; the threshold is a fraction of it and counts only with
    `auto_compact`. `tools` are the names on offer, None for all that the agent has. `security` is
    kept as it came and not interpreted.
    """

    system_prompt: str | None = None
    max_context_length: int | None = None
    auto_compact: bool = False
    auto_compact_threshold: float = DEFAULT_THRESHOLD
    lanes: Lanes | None = None
    confirmation: Confirmation | None = None
    permissions: Permissions | None = None
    planning_mode: PlanningMode = PlanningMode.AUTO
    goal_tracking: bool = False
    thinking: Thinking | None = None
    tools: tuple[str, ...] | None = None
    security: Raw | UnsetType = UNSET


class ConfigPatch(Shape, frozen=True):
    """A change of a configuration."""

    name: Name | UnsetType | None = UNSET
    system_prompt: Words | UnsetType | None = UNSET
    max_context_length: Tokens | UnsetType | None = UNSET
    auto_compact: bool | UnsetType | None = UNSET
    auto_compact_threshold: Fraction | UnsetType | None = UNSET
    lanes: Lanes | UnsetType | None = UNSET
    confirmation: Confirmation | UnsetType | None = UNSET
    permissions: Permissions | UnsetType | None = UNSET
    planning_mode: PlanningMode | UnsetType | None = UNSET
    goal_tracking: bool | UnsetType | None = UNSET
    thinking: Thinking | UnsetType | None = UNSET
    tools: Names | UnsetType | None = UNSET
    parent: str | UnsetType | None = UNSET
    labels: Labels | UnsetType | None = UNSET
    security: Raw | UnsetType = UNSET


class ConfigWish(ConfigPatch, frozen=True, forbid_unknown_fields=True):
    """A change as a client asks for it: a field that is misspelt is refused and not ignored."""


class ConfigShown(SessionConfig, frozen=True, kw_only=True, omit_defaults=False):
    """A whole configuration.

    `name` is the session's title. `workspace` and `storage` say where it works and what keeps it:
    the one was given to `session/new`, the other is the daemon's own choice.
    """

    name: str
    workspace: str
    storage: str
    parent: str | None
    labels: dict[str, str]


class ConfigSetParams(SessionParams, frozen=True):
    config: ConfigWish


class ConfigResult(Shape, frozen=True):
    config: ConfigShown

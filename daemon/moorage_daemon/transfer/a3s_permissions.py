"""The permission policy of the a3s layout in our own rules: never wider than it was there.

There a rule is a pattern over a call's text: a prefix ends anywhere, a star stands for all but a
slash, and what is allowed is not asked about. Here a prefix ends at a word and paths are compared
as paths. A rule is taken over where it means the same or, for one that allows, less. Where one that
denies cannot be said here, nothing of its tool is allowed unasked; and where nothing but what rules
name was possible, no rule that asks makes more possible.
"""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta, Struct

from moorage_daemon.grants.rules import BadRule, read_rule
from moorage_protocol.config import PermissionDefault, Permissions


MAX_RULES = 100  # of a kind; a command's counts twice here
MAX_TEXT = 500  # characters
SHOWN = 80  # of them in a note

COMMANDS = "bash"
PATHS = frozenset({"read", "write", "edit", "ls"})
TOOLS = {  # there, and here
    "bash": "Bash",
    "read": "Read",
    "write": "Write",
    "edit": "Edit",
    "ls": "List",
    "glob": "Glob",
    "grep": "Search",
    "web_fetch": "Fetch",
    "task": "Delegate",
}
WITHOUT_SHELL = "Run"  # there is no such tool there: what is denied to a shell is denied to it


class _Written(Struct):
    rule: Annotated[str, Meta(max_length=MAX_TEXT)]


_Rules = Annotated[
    list[Annotated[str, Meta(max_length=MAX_TEXT)] | _Written], Meta(max_length=MAX_RULES)
]


class A3sPolicy(Struct):
    """The policy as it is written; a rule is its text, or an object with that."""

    deny: _Rules = []
    allow: _Rules = []
    ask: _Rules = []
    default_decision: str = "ask"
    enabled: bool = True


@dataclass(frozen=True)
class _Rule:
    """A rule there: the tool, in small letters but for those of servers, and maybe a pattern."""

    text: str
    tool: str
    pattern: str | None

    @property
    def is_everything(self) -> bool:
        return self.pattern in (None, "*", "**", ":*")

    @property
    def prefix(self) -> str:
        """What every text that it means begins with."""
        if self.is_everything:
            return ""
        assert self.pattern is not None
        if self.pattern.endswith(":*"):
            return self.pattern.removesuffix(":*")
        return min((self.pattern.split(star)[0] for star in "*?"), key=len)

    def may_mean(self, other: "_Rule") -> bool:
        """Whether there may be a call that both are about."""
        if self.tool != other.tool and "*" not in (self.tool, other.tool):
            servers = self.tool.startswith("mcp__") and other.tool.startswith("mcp__")
            return servers and _overlap(self.tool, other.tool)
        return _overlap(self.prefix, other.prefix)

    def here(self) -> str | None:
        """The rule in our words; None if there are none for it."""
        is_known = self.tool.startswith("mcp__") and "*" not in self.tool
        tool = self.tool if is_known else TOOLS.get(self.tool)
        if tool is None:
            return None
        text = tool if self.is_everything else f"{tool}({self._pattern()})"
        try:
            read_rule(text)
        except BadRule:
            return None
        return text

    def _pattern(self) -> str:
        """The pattern where it means here what it means there, else "", which is none."""
        pattern = self.pattern or ""
        if self.tool == COMMANDS:
            return "" if {*"*?"} & {*pattern.removesuffix(":*")} else pattern
        if self.tool in PATHS and not pattern.endswith(":*"):
            mixed = any("**" in part and part != "**" for part in pattern.split("/"))
            return "" if mixed or "[" in pattern else pattern
        return ""

    @property
    def is_exact_here(self) -> bool:
        """Whether all that it means there is meant by our words as well."""
        if self.here() is None or self.tool.startswith("mcp__"):
            return False
        return self.tool != COMMANDS or not (self.pattern or "").endswith(":*") or self.ends_word

    @property
    def ends_word(self) -> bool:
        """Whether it is a prefix of whole words that something has to follow."""
        return self.prefix.endswith(" ")


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


@dataclass
class _Mapping:
    notes: list[str] = field(default_factory=list[str])
    deny: list[str] = field(default_factory=list[str])
    allow: list[str] = field(default_factory=list[str])
    ask: list[str] = field(default_factory=list[str])

    def leave(self, what: str, rule: _Rule, why: str) -> None:
        text = rule.text if len(rule.text) <= SHOWN else rule.text[:SHOWN] + "…"
        self.notes.append(f"permissions: {what} {text}: {why}")


def mapped(policy: A3sPolicy, *, allowing: bool, notes: list[str]) -> Permissions:
    """The policy in our words; `notes` get what of it could not be said, or not all of it.

    Rules that allow are taken over only where whoever brings them is `allowing` that.
    """
    found = _Mapping(notes)
    denied = _rules(policy.deny)
    default = _default(policy, denied, found)
    for rule in denied:
        _deny(rule, default, found)
    for rule in _rules(policy.ask):
        _ask(rule, default, found)
    for rule in _rules(policy.allow):
        _allow(rule, denied, policy, found, allowing=allowing)
    deny, allow, ask = (
        tuple(dict.fromkeys(rules)) for rules in (found.deny, found.allow, found.ask)
    )
    return Permissions(deny=deny, allow=allow, ask=ask, default=default)


def _rules(written: list[str | _Written]) -> list[_Rule]:
    return [_read(rule.rule if isinstance(rule, _Written) else rule) for rule in written]


def _read(text: str) -> _Rule:
    tool, bracket, rest = text.partition("(")
    has_pattern = bool(bracket) and text.endswith(")")
    tool = tool if has_pattern else text
    name = tool if tool.startswith("mcp__") else tool.lower()
    return _Rule(text, name, rest[:-1] if has_pattern else None)


def _default(policy: A3sPolicy, denied: list[_Rule], found: _Mapping) -> PermissionDefault:
    if not policy.enabled:
        found.notes.append("permissions: the policy was off, and all was allowed: it is on here")
    if policy.default_decision == "deny" or any(rule.tool == "*" for rule in denied):
        return PermissionDefault.DENY
    if policy.default_decision != "ask":
        found.notes.append("permissions: what no rule is about is asked about here")
    return PermissionDefault.ASK


def _deny(rule: _Rule, default: PermissionDefault, found: _Mapping) -> None:
    if rule.tool == "*":
        return
    text = rule.here()
    if text is not None:
        found.deny.append(text)
        if rule.tool == COMMANDS:
            found.deny.append(text.replace(TOOLS[COMMANDS], WITHOUT_SHELL, 1))
        if not rule.is_exact_here:
            found.leave("deny", rule, "it ends at a word here, and what goes on is not denied")
        return
    tool = TOOLS.get(rule.tool)
    if tool is None:
        found.leave("deny", rule, "no tool here is known by that name")
        return
    found.leave("deny", rule, f"not known here, so no call of {tool} is allowed unasked")
    if default is not PermissionDefault.DENY:
        found.ask += [tool, *([WITHOUT_SHELL] if rule.tool == COMMANDS else [])]


def _ask(rule: _Rule, default: PermissionDefault, found: _Mapping) -> None:
    text = rule.here()
    if text is None:
        found.leave("ask", rule, "not known here")
    elif default is PermissionDefault.DENY and not rule.is_everything:
        found.leave("ask", rule, "here it would ask about more, and that was denied")
    else:
        found.ask.append(text)


def _allow(
    rule: _Rule, denied: list[_Rule], policy: A3sPolicy, found: _Mapping, *, allowing: bool
) -> None:
    text = rule.here()
    if text is None or (rule.tool == COMMANDS and rule.ends_word):  # here it means the word alone
        found.leave("allow", rule, "not known here")
    elif not policy.enabled:
        found.leave("allow", rule, "left behind, as the policy was off")
    elif any(other.may_mean(rule) and not other.is_exact_here for other in denied):
        found.leave("allow", rule, "left behind, as a part of it was denied that cannot be here")
    elif not allowing:
        found.leave("allow", rule, "left behind, as nobody here has allowed it")
    else:
        found.allow.append(text)

"""Permissions: what is denied, asked about or allowed, below what a grant permits.

A rule that denies beats all others. Of the rules that allow and that ask the one that says more
counts, so `Bash(git push:*)` can be asked about where `Bash(git:*)` is allowed, and the other way
round; of two that say the same it is the asking one. Several policies are as strict as the
strictest that says anything: what was stored with a session and what holds now both count.
"""

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache

import msgspec

from moorage_daemon.grants.calls import Call, Shell
from moorage_daemon.grants.rules import Rule, RulesByTool, read_rule
from moorage_daemon.grants.touching import Touch
from moorage_protocol.config import PermissionDefault, Permissions


KEPT = 32  # commands, of which each is looked at several times on its way and many come again
MAX_KEPT = 500  # characters of one


class Say(IntEnum):
    """What a policy says of a call; the greater is the stricter. `NOTHING` leaves it to others."""

    ALLOW = 0
    NOTHING = 1
    ASK = 2
    DENY = 3


class Ruling(msgspec.Struct, frozen=True):
    """What was said, and by which rule; None if by no rule."""

    say: Say
    rule: str | None = None


_OTHERWISE = {
    None: Say.NOTHING,
    PermissionDefault.ALLOW: Say.ALLOW,
    PermissionDefault.ASK: Say.ASK,
    PermissionDefault.DENY: Say.DENY,
}


class Policy:
    """The rules of one source, read; raises `BadRule`."""

    def __init__(self, permissions: Permissions) -> None:
        self._deny = RulesByTool(map(read_rule, permissions.deny))
        self._allow = RulesByTool(map(read_rule, permissions.allow))
        self._ask = RulesByTool(map(read_rule, permissions.ask))
        self._otherwise = Ruling(_OTHERWISE[permissions.default])
        self._kept = lru_cache(KEPT)(self._rule)

    def rule(self, call: Call) -> Ruling:
        """What these rules say of a call; of the commands that it was asked about last it knows."""
        is_short = isinstance(call.subject, Shell) and len(call.subject.command) <= MAX_KEPT
        return self._kept(call) if is_short else self._rule(call)

    def _rule(self, call: Call) -> Ruling:
        unsure: Rule | None = None
        for rule in self._deny.about(call.tool):
            touch = rule.touches(call)
            if touch is Touch.YES:
                return Ruling(Say.DENY, rule.text)
            if touch is Touch.UNSURE:
                unsure = unsure or rule
        ruling = self._ruling_without_deny(call)
        if unsure is not None and ruling.say < Say.ASK:
            return Ruling(Say.ASK, unsure.text)
        return ruling

    def _ruling_without_deny(self, call: Call) -> Ruling:
        allowing = _heaviest(rule for rule in self._allow.about(call.tool) if rule.permits(call))
        asking = _heaviest(
            rule for rule in self._ask.about(call.tool) if rule.touches(call) is not Touch.NO
        )
        if asking is not None and (allowing is None or asking.weight >= allowing.weight):
            return Ruling(Say.ASK, asking.text)
        if allowing is not None:
            return Ruling(Say.ALLOW, allowing.text)
        return self._otherwise


def _heaviest(rules: Iterable[Rule]) -> Rule | None:
    return max(rules, key=lambda rule: rule.weight, default=None)


NO_RULES = Policy(Permissions(default=None))


def strictest(policies: Iterable[Policy], call: Call) -> Ruling:
    """What several policies say together; one that says nothing takes nothing away."""
    rulings = [policy.rule(call) for policy in policies]
    spoken = [ruling for ruling in rulings if ruling.say is not Say.NOTHING]
    return max(spoken, key=lambda ruling: ruling.say, default=Ruling(Say.NOTHING))

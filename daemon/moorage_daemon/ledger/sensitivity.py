"""How sensitive the result of a tool call is, by rules about the call.

What no rule is about is `internal`, as the rest of a session is.
"""

from collections.abc import Mapping

from moorage_daemon.grants.calls import Call
from moorage_daemon.grants.rules import read_rule
from moorage_daemon.grants.touching import Touch
from moorage_protocol.grants import Sensitivity


class Classifier:
    """The rules of the settings, the narrowest level first."""

    def __init__(self, rules: Mapping[Sensitivity, tuple[str, ...]]) -> None:
        self._levels = [
            (level, tuple(map(read_rule, rules[level])))
            for level in sorted(rules, key=lambda level: -level.rank)
        ]

    def __call__(self, call: Call, text: str) -> Sensitivity:
        """The level; where it cannot be told whether a rule is meant, it is.

        A level that is wider than usual has to be meant for sure. The text has no say: that is for
        a classifier that looks for what is in it.
        """
        for level, rules in self._levels:
            if level.rank <= Sensitivity.INTERNAL.rank:
                if any(rule.permits(call) for rule in rules):
                    return level
            elif any(rule.touches(call) is not Touch.NO for rule in rules):
                return level
        return Sensitivity.INTERNAL

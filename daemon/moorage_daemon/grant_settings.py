"""What a person may say about grants: `[grants]` of the settings file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast


MAX_PER_AGENT = 10_000
MAX_RETENTION = 3650  # days


class BadGrants(Exception):
    """A table that is not as it has to be; one line says which key is wrong."""


@dataclass(frozen=True)
class GrantSettings:
    """`max_per_agent` is how many active grants an agent of one principal may have at once."""

    max_per_agent: int = 10
    retention_days: float = 30


def read_grants(value: object) -> GrantSettings:
    """The table `[grants]`; raises `BadGrants`."""
    if not isinstance(value, dict):
        raise BadGrants("grants must be a table: [grants]")
    return GrantSettings(**_read("grants", cast("dict[str, object]", value), _RULES))


def _read(table: str, written: Mapping[str, object], rules: "Mapping[str, _Rule]") -> Any:
    chosen: dict[str, object] = {}
    for key, value in written.items():
        rule = rules.get(key)
        if rule is None:
            known = ", ".join(rules)
            raise BadGrants(f"{table}: unknown key {key[:64]!r}, there are: {known}")
        try:
            chosen[key] = rule.read(value)
        except ValueError as error:
            raise BadGrants(f"{table}.{key} must be {rule.allowed}") from error
    return chosen


def _whole(most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise ValueError
        return value

    return read


def _days(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError
    if not 0 <= value <= MAX_RETENTION:  # neither is true of not-a-number
        raise ValueError
    return value


class _Rule(NamedTuple):
    """One key: what may stand there, in words and as code."""

    allowed: str
    read: Callable[[Any], object]  # raises ValueError


_RULES = {
    "max_per_agent": _Rule(f"a whole number up to {MAX_PER_AGENT}", _whole(MAX_PER_AGENT)),
    "retention_days": _Rule(f"days up to {MAX_RETENTION}", _days),
}

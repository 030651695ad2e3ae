"""Tables of the settings file that hold numbers: `[grants]`, `[retention]`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast


class BadTable(Exception):
    """A table that is not as it has to be; one line says which key is wrong."""


class Rule(NamedTuple):
    """One key: what may stand there, in words and as code."""

    allowed: str
    read: Callable[[Any], object]  # raises ValueError


def read_table(table: str, value: object, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """The checked values of a table, by key; raises `BadTable`."""
    if not isinstance(value, dict):
        raise BadTable(f"{table} must be a table: [{table}]")
    chosen: dict[str, Any] = {}
    for key, written in cast("dict[str, object]", value).items():
        rule = rules.get(key)
        if rule is None:
            known = ", ".join(rules)
            raise BadTable(f"{table}: unknown key {key[:64]!r}, there are: {known}")
        try:
            chosen[key] = rule.read(written)
        except ValueError as error:
            raise BadTable(f"{table}.{key} must be {rule.allowed}") from error
    return chosen


def whole(most: int, least: int = 0) -> Callable[[object], int]:
    """A whole number within these bounds."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError
        return value

    return read


def number(most: float) -> Callable[[object], float]:
    """A number from 0 on."""

    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError
        if not 0 <= value <= most:  # neither is true of not-a-number
            raise ValueError
        return value

    return read

"""Path patterns: `*` and `?` within one name, `**` over any number of names, `[abc]`.

Matching looks back at most to the last star, so no pattern takes more than the product of both
lengths: a pattern comes from whoever asks for a grant.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar


A = TypeVar("A")
B = TypeVar("B")


def matches_path(pattern: str, path: str) -> bool:
    """Whether the whole path is one of those the pattern means."""
    return _matches(pattern.split("/"), path.split("/"), lambda part: part == "**", _matches_name)


def _matches_name(pattern: str, name: str) -> bool:
    return _matches(_units(pattern), name, lambda unit: unit == "*", _matches_unit)


def _matches_unit(unit: str, letter: str) -> bool:
    if unit == "?":
        return True
    if len(unit) > 1:
        return _in_set(unit[1:-1], letter)
    return unit == letter


def _matches(
    pattern: Sequence[A],
    text: Sequence[B],
    is_star: Callable[[A], bool],
    fits: Callable[[A, B], bool],
) -> bool:
    at, then, star, kept = 0, 0, -1, 0
    while then < len(text):
        if at < len(pattern) and is_star(pattern[at]):
            star, kept, at = at, then, at + 1
        elif at < len(pattern) and fits(pattern[at], text[then]):
            at, then = at + 1, then + 1
        elif star >= 0:
            kept += 1
            at, then = star + 1, kept
        else:
            return False
    return all(is_star(unit) for unit in pattern[at:])


def _units(pattern: str) -> list[str]:
    """The pattern letter by letter, a set as one unit."""
    units: list[str] = []
    at = 0
    while at < len(pattern):
        end = pattern.find("]", at + 2) if pattern[at] == "[" else -1
        units.append(pattern[at : end + 1] if end > 0 else pattern[at])
        at += len(units[-1])
    return units


def _in_set(wanted: str, letter: str) -> bool:
    is_negated = wanted.startswith(("!", "^")) and len(wanted) > 1
    members = wanted[1:] if is_negated else wanted
    return _has(members, letter) is not is_negated


def _has(members: str, letter: str) -> bool:
    at = 0
    while at < len(members):
        if at + 2 < len(members) and members[at + 1] == "-":
            if members[at] <= letter <= members[at + 2]:
                return True
            at += 3
        elif members[at] == letter:
            return True
        else:
            at += 1
    return False

"""Decode as the Agent Client Protocol asks: a malformed optional field counts as absent.

Strict first, which is the usual case and costs nothing. On failure the key that the error names
is dropped and the value converted again. Nothing is dropped inside an array, and never the root:
there every item was meant. Nor is anything of ours, be it a method or a key: who sends it knows
moorage, and an ignored `afterSeq` is a silent gap.
"""

import re
from typing import TypeVar, cast

import msgspec

from moorage_protocol.errors import InvalidParams


T = TypeVar("T")

MAX_DROPPED = 8  # malformed optional fields forgiven in one message
MAX_FORGIVEN_BYTES = 64 * 2**10  # larger values are not built untyped: that blocks the loop

_PATH = re.compile(r" - at `\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|(\[[^\]]*\])")


def decode(raw: bytes | msgspec.Raw, shape: type[T]) -> T:
    """Read `raw` as `shape`; raises `InvalidParams` that names the offending field."""
    try:
        return _read(raw, shape)
    except msgspec.ValidationError as error:
        problem = error
    if len(bytes(raw)) > MAX_FORGIVEN_BYTES:
        raise InvalidParams(describe(problem))
    return _forgive(_plain(raw, problem), shape, problem)


def decode_own(raw: bytes | msgspec.Raw, shape: type[T]) -> T:
    """Read `raw` as the params of a method of ours: there, nothing malformed is forgiven.

    Raises `InvalidParams`.
    """
    try:
        return _read(raw, shape)
    except msgspec.ValidationError as error:
        raise InvalidParams(describe(error)) from None


def _read(raw: bytes | msgspec.Raw, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidParams from None


def _plain(raw: bytes | msgspec.Raw, problem: msgspec.ValidationError) -> object:
    """The value without a shape; a number like 1e400 is JSON, and still none that Python has."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidParams(describe(problem)) from None


def _forgive(value: object, shape: type[T], problem: msgspec.ValidationError) -> T:
    for _ in range(MAX_DROPPED):
        if not _drop(value, str(problem)):
            break
        try:
            return msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            problem = error
    raise InvalidParams(describe(problem))


def _drop(value: object, problem: str) -> bool:
    """Take away the key that the error is about; False where that is no key of an object."""
    found = _PATH.search(problem)
    steps = _STEP.findall(found[1]) if found else []
    if not steps or any(index for _, index in steps) or _is_ours(steps):
        return False
    for key, _ in steps[:-1]:
        if not isinstance(value, dict):
            return False
        value = cast("dict[str, object]", value).get(key)
    if not isinstance(value, dict):
        return False
    return cast("dict[str, object]", value).pop(steps[-1][0], msgspec.UNSET) is not msgspec.UNSET


def _is_ours(steps: list[tuple[str, str]]) -> bool:
    """Our own extension fields are refused when malformed: an ignored limit is worse than none."""
    return [key for key, _ in steps[:2]] == ["_meta", "moorage"]


def describe(error: msgspec.ValidationError) -> str:
    """One line for the peer: the field and what was expected there."""
    expected, _, where = str(error).partition(" - at `$")
    field = where.rstrip("`").lstrip(".")
    missing = re.search(r"missing required field `([^`]+)`", expected)
    if missing:
        return f"Invalid params: {field + '.' if field else ''}{missing[1]} is missing"
    return f"Invalid params: {field}: {expected}" if field else f"Invalid params: {expected}"

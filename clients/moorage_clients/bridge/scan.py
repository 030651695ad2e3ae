"""The few fields of a JSON message that a relay goes by, without reading the rest of it.

A message passes the relay as the bytes it is, some of them megabytes long. So nothing is built
from it: the scanner walks over strings and brackets, and says where the wanted values stand. It
holds a message to no more than that takes; what is wrong beyond it is for the other end to say.
"""

import json
import re
from typing import Any


Span = tuple[int, int]  # from the first byte of a value to behind its last
Wanted = dict[bytes, Any]  # a field, and in the same way the wanted ones in it; {}: none

MAX_DEPTH = 64  # the daemon's own limit: what is deeper is refused there

_OPENING, _QUOTE = b"{[", b'"'
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = re.compile(rb"[ \t\n\r]*+")
_TEXT = re.compile(_STRING, re.DOTALL)
_KEY = re.compile(rb"(" + _STRING + rb")[ \t\n\r]*+:[ \t\n\r]*+", re.DOTALL)
_NEXT = re.compile(rb"[ \t\n\r]*+([,}])[ \t\n\r]*+")
_TO_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+[{}\[\]]', re.DOTALL)
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]++")


class Unreadable(Exception):
    """That is no JSON object, or none whose fields can be told."""


def fields(data: bytes, wanted: Wanted) -> dict[str, Span]:
    """Where in the object `data` the wanted fields are, by their path; raises `Unreadable`.

    A path is `params._meta.moorage`. Of a field that is there twice the last one counts.
    """
    found: dict[str, Span] = {}
    start = _space(data, 0)
    if data[start : start + 1] != b"{":
        raise Unreadable
    try:
        end = _object(data, start, wanted, found, "")
    except ValueError:  # a key that no JSON decoder takes
        raise Unreadable from None
    if _space(data, end) != len(data):
        raise Unreadable
    return found


def _object(data: bytes, at: int, wanted: Wanted, found: dict[str, Span], path: str) -> int:
    """Walk over the object that begins at `at`; gives where it ends."""
    at = _space(data, at + 1)
    if data[at : at + 1] == b"}":
        return at + 1
    while True:
        key = _KEY.match(data, at)
        if key is None:
            raise Unreadable
        start = key.end()
        inner = wanted.get(_plain(key[1]))
        if inner is None:
            end = _value(data, start)
        else:
            name = path + _plain(key[1]).decode()
            _forget(found, name)
            if inner and data[start : start + 1] == b"{":
                end = _object(data, start, inner, found, name + ".")
            else:
                end = _value(data, start)
            found[name] = (start, end)
        following = _NEXT.match(data, end)
        if following is None:
            raise Unreadable
        if following[1] == b"}":
            return following.end(1)
        at = following.end()


def _plain(key: bytes) -> bytes:
    """A key's own text; `"\\u0069d"` is an id as well."""
    return json.loads(key).encode() if b"\\" in key else key[1:-1]


def _forget(found: dict[str, Span], name: str) -> None:
    """The field was there before: what was found in it does not count."""
    if name in found:
        for path in [path for path in found if path.startswith(name + ".")]:
            del found[path]


def _value(data: bytes, at: int) -> int:
    first = data[at : at + 1]
    if first and first in _OPENING:
        return _nested(data, at)
    found = (_TEXT if first == _QUOTE else _SCALAR).match(data, at)
    if found is None:
        raise Unreadable
    return found.end()


def _nested(data: bytes, at: int) -> int:
    """Walk over an array or object of which nothing is wanted."""
    depth = 0
    while True:
        found = _TO_BRACKET.match(data, at)
        if found is None:
            raise Unreadable
        at = found.end()
        if data[at - 1] in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise Unreadable
        else:
            depth -= 1
            if depth == 0:
                return at


def _space(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    return at if found is None else found.end()

"""Messages as the relay knows them: whole, with the few fields it goes by."""

import json
import re
from enum import Enum, auto
from typing import NamedTuple, cast

from moorage_clients.bridge.framing import MAX_FRAME_BYTES
from moorage_clients.bridge.scan import Span, Unreadable, Wanted, fields


# What the daemon takes for an id. Others it answers without one: nothing is to wait for that.
MAX_ID_BYTES = 256
MAX_ID_NUMBER = 2**53


class Kind(Enum):
    REQUEST = auto()
    NOTIFICATION = auto()
    RESPONSE = auto()
    OTHER = auto()  # no message; the daemon knows best what to say to it


class Frame(NamedTuple):
    """One message. `id` and `cancels` are ids as JSON text, the same for the same id.

    `session` and `seq` are those of the params or of the result; `found` says where else
    something stands.
    """

    data: bytes
    kind: Kind
    id: str | None = None
    method: str | None = None
    session: str | None = None
    seq: int | None = None
    cancels: str | None = None  # the id in a `$/cancel_request`
    is_error: bool = False  # a response without a result
    found: dict[str, Span] = {}

    def value(self, path: str) -> object:
        """What stands in a field, as Python has it; None where it is missing or no JSON."""
        span = self.found.get(path)
        try:
            return None if span is None else json.loads(self.data[slice(*span)])
        except (ValueError, RecursionError):
            return None

    @property
    def error_code(self) -> object:
        """The code of an error response."""
        return _member(self.value("error"), "code")

    @property
    def error_kind(self) -> object:
        """The word for it in an error's data."""
        return _member(_member(self.value("error"), "data"), "code") if self.is_error else None


def _member(value: object, name: str) -> object:
    return cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None


_MARK: Wanted = {b"moorage": {b"seq": {}, b"promptId": {}}}
_WANTED: Wanted = {
    b"id": {},
    b"method": {},
    b"params": {
        b"sessionId": {},
        b"seq": {},
        b"requestId": {},
        b"terminalId": {},
        b"_meta": _MARK,
    },
    b"result": {b"sessionId": {}, b"seq": {}, b"terminalId": {}, b"_meta": _MARK},
    b"error": {},
}

# As the daemon writes what it streams: the session in front, the number at the very end. Quotes
# in a text are escaped, so neither pattern can be part of one, and the count of braces says that
# the number is the message's own.
_STREAMED = re.compile(
    rb'\{"jsonrpc":"2\.0","method":"session/update","params":\{"sessionId":"([a-z0-9]+)","update":\{'
)
_MARKED = re.compile(rb'\},"_meta":\{"moorage":\{"seq":([0-9]+)(?:,"generation":[0-9]+)?\}\}\}\}\Z')
_LONGEST_MARK = 100  # bytes of it, with two numbers of 20 digits


def read(data: bytes) -> Frame:
    """Say what a message is; never raises, what cannot be read is `Kind.OTHER`."""
    begin = _STREAMED.match(data)
    if begin is not None:
        mark = _MARKED.search(data, max(begin.end(), len(data) - _LONGEST_MARK))
        if mark is not None:
            session = begin[1].decode()
            return Frame(data, Kind.NOTIFICATION, None, "session/update", session, int(mark[1]))
    try:
        return _classify(data, fields(data, _WANTED))
    except Unreadable:
        return Frame(data, Kind.OTHER)


def _classify(data: bytes, found: dict[str, Span]) -> Frame:
    frame = Frame(data, Kind.OTHER, found=found)
    method = frame.value("method")
    key = _id(frame, "id")
    if "id" in found and key is None:
        return frame
    if isinstance(method, str):
        kind = Kind.NOTIFICATION if key is None else Kind.REQUEST
        session, seq = _place(frame, "params")
        cancels = _id(frame, "params.requestId") if method == "$/cancel_request" else None
        return Frame(data, kind, key, method, session, seq, cancels, found=found)
    if key is not None and ("result" in found or "error" in found):
        session, seq = _place(frame, "result")
        is_error = "error" in found
        return Frame(data, Kind.RESPONSE, key, None, session, seq, None, is_error, found)
    return frame


def _id(frame: Frame, path: str) -> str | None:
    """An id as JSON text; None if there is none, or none that an id can be."""
    found = frame.value(path)
    match found:
        case _ if path not in frame.found:
            return None
        case dict() | list() | bool() | float():
            return None
        case str() if len(found.encode(errors="replace")) > MAX_ID_BYTES:
            return None
        case int() if abs(found) > MAX_ID_NUMBER:
            return None
        case _:
            return json.dumps(found)


def _place(frame: Frame, inside: str) -> tuple[str | None, int | None]:
    session = frame.value(f"{inside}.sessionId")
    for path in (f"{inside}.seq", f"{inside}._meta.moorage.seq"):
        seq = frame.value(path)
        if isinstance(seq, int):
            return session if isinstance(session, str) else None, seq
    return session if isinstance(session, str) else None, None


# ---- adding to a message


def with_ours(frame: Frame, field: str, value: object) -> Frame:
    """The same request with one more field in its `_meta.moorage`.

    It stays as it is where it has that field, has no params to put it in, or would get too long.
    """
    path = f"params._meta.moorage.{field}"
    if path in frame.found or not _is_object(frame, "params"):
        return frame
    ours = b'"%b":%b' % (field.encode(), json.dumps(value).encode())
    if _is_object(frame, "params._meta.moorage"):
        data = _inserted(frame, "params._meta.moorage", ours)
    elif "params._meta.moorage" in frame.found:
        return frame  # malformed, which the daemon says
    elif _is_object(frame, "params._meta"):
        data = _inserted(frame, "params._meta", b'"moorage":{%b}' % ours)
    elif "params._meta" in frame.found:  # malformed, and so as good as absent
        start, end = frame.found["params._meta"]
        data = b'%b{"moorage":{%b}}%b' % (frame.data[:start], ours, frame.data[end:])
    else:
        data = _inserted(frame, "params", b'"_meta":{"moorage":{%b}}' % ours)
    return read(data) if len(data) <= MAX_FRAME_BYTES else frame


def _is_object(frame: Frame, path: str) -> bool:
    span = frame.found.get(path)
    return span is not None and frame.data[span[0] : span[0] + 1] == b"{"


def _inserted(frame: Frame, path: str, member: bytes) -> bytes:
    """The message with one more member at the beginning of an object."""
    start, end = frame.found[path]
    inner = start + 1
    comma = b"," if frame.data[inner : end - 1].strip() else b""
    return frame.data[:inner] + member + comma + frame.data[inner:]


def encode(**message: object) -> bytes:
    """A message of our own."""
    return json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode()

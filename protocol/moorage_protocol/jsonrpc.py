"""JSON-RPC 2.0 envelopes: one frame in, one message out.

`decode` checks everything that has to hold before any part of a frame is believed: strict
UTF-8, bounded nesting, a known envelope; that no escape is half a surrogate pair, the decoder
sees to, in raw values as well. What the envelope carries stays raw until the method says which
shape to expect, so a large free-form value is never built as Python objects. Arrays (batches) are
refused as a whole: the Agent Client Protocol has none.
"""

import re
from itertools import accumulate
from typing import Literal

import msgspec

from moorage_protocol.errors import ErrorObject, InvalidRequest, ParseError, RpcError


RequestId = str | int | None

MAX_DEPTH = 64  # nested arrays and objects in a frame; no ACP message comes near it
MAX_ID_BYTES = 256  # a request id is echoed: a long one would be an amplifier
MAX_ID_NUMBER = 2**53  # beyond it JavaScript peers cannot give the number back
EMPTY = msgspec.Raw(b"{}")


class Request(msgspec.Struct, frozen=True):
    """A call that must be answered under its `id`."""

    id: RequestId
    method: str
    params: msgspec.Raw = EMPTY


class Notification(msgspec.Struct, frozen=True):
    """A call that is never answered."""

    method: str
    params: msgspec.Raw = EMPTY


class Response(msgspec.Struct, frozen=True):
    """The good end of a request."""

    id: RequestId
    result: msgspec.Raw


class ErrorResponse(msgspec.Struct, frozen=True):
    """The bad end of a request; `id` is None where the request could not be read."""

    id: RequestId
    error: ErrorObject


Message = Request | Notification | Response | ErrorResponse


class _Envelope(msgspec.Struct, frozen=True):
    method: str | msgspec.UnsetType = msgspec.UNSET
    id: RequestId | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = EMPTY
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorObject | msgspec.UnsetType = msgspec.UNSET
    jsonrpc: str = ""


class _Sent(msgspec.Struct, omit_defaults=True):
    jsonrpc: Literal["2.0"] | msgspec.UnsetType = msgspec.UNSET
    id: RequestId | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: object = msgspec.UNSET
    result: object = msgspec.UNSET
    error: ErrorObject | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Envelope)
_encoder = msgspec.json.Encoder()
encode = _encoder.encode


def encode_request(request_id: RequestId, method: str, params: object) -> bytes:
    """Write a request; `params` is a struct or `msgspec.Raw`."""
    return encode(_Sent("2.0", id=request_id, method=method, params=params))


def encode_notification(method: str, params: object) -> bytes:
    """Write a notification; `params` is a struct or `msgspec.Raw`."""
    return encode(_Sent("2.0", method=method, params=params))


def encode_result(request_id: RequestId, result: object) -> bytes:
    """Write the good answer to a request."""
    return encode(_Sent("2.0", id=request_id, result=result))


def encode_error(request_id: RequestId, error: RpcError) -> bytes:
    """Write the bad answer to a request; an id of None means the request was unreadable."""
    return encode(_Sent("2.0", id=request_id, error=error.to_object()))


def decode(frame: bytes) -> Message:
    """Read one frame.

    Raises `ParseError` for bytes that are no JSON text, `InvalidRequest` for JSON that is no
    single well-formed JSON-RPC message. Of duplicate keys the last counts.
    """
    _check_text(frame)
    try:
        envelope = _decoder.decode(_on_one_line(frame))
    except msgspec.ValidationError as error:
        raise InvalidRequest(_why(frame, str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ParseError from None
    return _classify(envelope)


_BLANK = b" \t\r\n"  # what JSON takes for white space; Python takes more


def _on_one_line(frame: bytes) -> bytes:
    """The frame without line ends: what stays raw may go out on a stream that is cut at them."""
    frame = frame.strip(_BLANK)
    if b"\n" not in frame and b"\r" not in frame:
        return frame
    return msgspec.json.format(frame, indent=-1)


def _check_text(frame: bytes) -> None:
    try:
        frame.decode()
    except UnicodeDecodeError:
        raise ParseError("Parse error: not UTF-8") from None
    if _too_deep(frame):
        raise InvalidRequest(f"Nesting deeper than {MAX_DEPTH}")


_SLICE = 2**16  # bytes of a frame taken apart at once, so that the pieces stay few
_RUN = 64  # brackets weighed at once
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: +1 and -1


def _too_deep(frame: bytes) -> bool:
    """Whether brackets nest deeper than MAX_DEPTH.

    Most frames have fewer openings than that and are through at once. Everything else is done
    in time that grows with the frame, whatever stands in it, and by the interpreter's C code.
    """
    if frame.count(b"[") + frame.count(b"{") <= MAX_DEPTH:
        return False
    text = frame.replace(rb"\\", b"__").replace(rb"\"", b"__")  # quotes now are ends of strings
    depth, in_string = 0, False
    for start in range(0, len(text), _SLICE):
        pieces = text[start : start + _SLICE].split(b'"')
        outside = b"".join(pieces[in_string::2])
        in_string ^= len(pieces) % 2 == 0
        depth = _climb(depth, outside.translate(_STEPS, _NOT_BRACKETS))
        if depth > MAX_DEPTH:
            return True
    return False


def _climb(depth: int, steps: bytes) -> int:
    """The depth after `steps`, or the first one found beyond MAX_DEPTH.

    A run that could not get there if all its openings came first is only counted.
    """
    for start in range(0, len(steps), _RUN):
        run = steps[start : start + _RUN]
        ups = run.count(1)
        if depth + ups > MAX_DEPTH:
            deepest = max(accumulate(memoryview(run).cast("b"), initial=depth))
            if deepest > MAX_DEPTH:
                return deepest
        depth += 2 * ups - len(run)
    return depth


def _why(frame: bytes, problem: str) -> str:
    if frame.lstrip()[:1] == b"[":
        return "Batches are not supported"
    where = re.search(r"`\$\.(\w+)`", problem)
    return f"Invalid request: {where[1]}" if where else InvalidRequest.summary


def _classify(envelope: _Envelope) -> Message:
    request_id = envelope.id
    if request_id is not msgspec.UNSET:
        check_id(request_id)
    if envelope.method is not msgspec.UNSET:
        if envelope.jsonrpc != "2.0":
            raise InvalidRequest("Invalid request: jsonrpc")
        params = EMPTY if bytes(envelope.params) == b"null" else envelope.params
        if request_id is msgspec.UNSET:
            return Notification(envelope.method, params)
        return Request(request_id, envelope.method, params)
    if request_id is msgspec.UNSET:
        raise InvalidRequest
    if envelope.error is not msgspec.UNSET:
        return ErrorResponse(request_id, envelope.error)
    if envelope.result is not msgspec.UNSET:
        return Response(request_id, envelope.result)
    raise InvalidRequest


def check_id(request_id: RequestId) -> None:
    """Raise `InvalidRequest` unless the id can be echoed to any peer unchanged."""
    match request_id:
        case str() if len(request_id.encode()) > MAX_ID_BYTES:
            raise InvalidRequest("Invalid request: id is too long")
        case int() if abs(request_id) > MAX_ID_NUMBER:
            raise InvalidRequest("Invalid request: id is out of range")
        case _:
            pass


class _Addressed(msgspec.Struct, frozen=True):
    method: str
    id: RequestId


_addressed_decoder = msgspec.json.Decoder(_Addressed)


def id_of(frame: bytes) -> RequestId:
    """The id under which an unusable request can be answered; None where there is none.

    A frame without a method may be a broken response: its id is ours, not the peer's, and is
    never sent back.
    """
    try:
        found = _addressed_decoder.decode(frame)
        check_id(found.id)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidRequest):
        return None
    return found.id

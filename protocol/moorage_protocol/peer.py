"""One JSON-RPC conversation without its I/O, the same for daemon and clients.

The peer numbers our requests, matches answers to them, and keeps nothing else: what a request
means stands in the `token` its caller gives. Feed `receive` one frame at a time; it says what
the frame was. Answers to requests that nobody waits for are dropped, as the Agent Client
Protocol asks of a peer whose other end may answer late or twice.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from moorage_protocol import jsonrpc
from moorage_protocol.errors import ParseError, RpcError, from_object
from moorage_protocol.jsonrpc import RequestId


T = TypeVar("T")


class CancelRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Params of `$/cancel_request`: the sender gives up its own earlier request."""

    request_id: RequestId


class Fault(msgspec.Struct, frozen=True):
    """A frame that is no message; `reply` is what to send back."""

    reply: bytes
    error: str


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """The answer to one of our requests."""

    token: T
    result: msgspec.Raw | RpcError


class Dropped(msgspec.Struct, frozen=True):
    """A response that belongs to no open request of ours."""

    id: RequestId


@dataclass(slots=True)
class Peer(Generic[T]):
    """Our half of a conversation.

    `first_id` is where our request ids start: a daemon starts at a random number, so that an
    answer meant for an earlier daemon is never taken for an answer to this one.
    """

    first_id: int = 1
    _next_id: int = field(init=False)
    _open: dict[RequestId, T] = field(init=False, default_factory=dict[RequestId, T])

    def __post_init__(self) -> None:
        self._next_id = self.first_id

    def request(self, method: str, params: object, token: T) -> tuple[int, bytes]:
        """Open a request; gives its id and the frame to send."""
        request_id = self._next_id
        self._next_id += 1
        self._open[request_id] = token
        return request_id, jsonrpc.encode_request(request_id, method, params)

    def retract(self, request_id: int, *, still_listening: bool = False) -> bytes | None:
        """Give up an open request; gives the frame to send, None if it was answered already.

        Who is `still_listening` gets a late answer all the same: it may tell what there is to undo.
        """
        if request_id not in self._open:
            return None
        if not still_listening:
            del self._open[request_id]
        return jsonrpc.encode_notification("$/cancel_request", CancelRequest(request_id))

    def receive(
        self, frame: bytes
    ) -> jsonrpc.Request | jsonrpc.Notification | Answer[T] | Dropped | Fault:
        """Read the next frame."""
        try:
            message = jsonrpc.decode(frame)
        except RpcError as error:
            return Fault(jsonrpc.encode_error(_id_for(error, frame), error), error.message)
        match message:
            case jsonrpc.Response():
                return self._answer(message.id, message.result)
            case jsonrpc.ErrorResponse():
                return self._answer(message.id, from_object(message.error))
            case _:
                return message

    def _answer(self, request_id: RequestId, result: msgspec.Raw | RpcError) -> Answer[T] | Dropped:
        if type(request_id) is not int or request_id not in self._open:
            return Dropped(request_id)
        return Answer(self._open.pop(request_id), result)

    def abandon(self) -> list[T]:
        """The conversation is over: gives the tokens of all requests that stay unanswered."""
        tokens = list(self._open.values())
        self._open.clear()
        return tokens


def _id_for(error: RpcError, frame: bytes) -> RequestId:
    """Nothing in a frame that is no JSON is believed, an id that could be made out neither."""
    return None if isinstance(error, ParseError) else jsonrpc.id_of(frame)

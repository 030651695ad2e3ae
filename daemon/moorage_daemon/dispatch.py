"""From a request to an answer, and from an exception to a message: the one place for both.

jsonrpcserver looks the method up, binds and calls it; only its synchronous core is used. Its
`async_dispatch` needs asyncio, and its error data carries exception texts, which never leave the
daemon: whatever a handler raises is turned into an error of ours before jsonrpcserver sees it.
"""

import logging
import secrets
from typing import Any

import msgspec
from jsonrpcserver import Success
from jsonrpcserver.dispatcher import dispatch_request
from jsonrpcserver.request import Request as Call
from jsonrpcserver.result import Result
from jsonrpcserver.sentinels import NOID
from oslash.either import Left  # type: ignore[import-untyped]  # it has no annotations

from moorage_daemon.handlers.port import Answer, Desk, Method, Peer
from moorage_daemon.handlers.table import METHODS
from moorage_protocol import lenient
from moorage_protocol.errors import InternalError, InvalidRequest, MethodNotFound, RpcError


logger = logging.getLogger(__name__)


def dispatch(
    desk: Desk, peer: Peer, method: str, params: msgspec.Raw, *, initialized: bool
) -> Answer | RpcError:
    """Decode the params, call the handler at once, give its answer or the error to send.

    It never raises and never waits: frames are handled in the order they came.
    """
    try:
        arguments = _arguments(METHODS.get(method), params, initialized=initialized)
    except RpcError as error:
        return error
    call = Call(method, [peer, arguments], NOID)
    outcome: Any = dispatch_request(_CALLABLES, desk, call)[1]
    if isinstance(outcome, Left):
        return MethodNotFound()  # the only error that is left to the library
    answer: Answer | RpcError = outcome._value.result
    return answer


def _arguments(
    method: Method[Any] | None, params: msgspec.Raw, *, initialized: bool
) -> msgspec.Struct | None:
    if method is not None and method.before_initialize == initialized:
        raise InvalidRequest("initialize comes once" if initialized else "initialize comes first")
    if method is None:
        if not initialized:
            raise InvalidRequest("initialize comes first")
        return None
    decode = lenient.decode_own if method.is_ours else lenient.decode
    arguments: msgspec.Struct = decode(params, method.params)
    return arguments


def _bound(method: Method[Any]) -> Any:
    """The handler as jsonrpcserver calls it: whatever it does, the outcome is a value."""

    def call(desk: Desk, peer: Peer, params: msgspec.Struct) -> Result:
        try:
            return Success(method.handle(desk, peer, params))
        except RpcError as error:
            return Success(error)
        except Exception as error:  # noqa: BLE001 - the request → wire boundary
            return Success(broken(error))

    return call


def broken(error: Exception) -> RpcError:
    """An error nobody foresaw: the log has all of it, the peer only where to find it."""
    if isinstance(error, RpcError):
        return error
    reference = secrets.token_hex(4)
    logger.error("a request broke", exc_info=error, extra={"reference": reference})
    return InternalError(f"Internal error (log reference {reference})")


_CALLABLES = {name: _bound(method) for name, method in METHODS.items()}

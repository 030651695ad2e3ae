"""Everything that can go wrong on the wire, as one tree.

    RpcError                        an error response; `code`, `message`, `kind`, `retryable`
    ├── the peer sent something wrong
    │   ├── ParseError              -32700  bytes that are no JSON
    │   ├── InvalidRequest          -32600  JSON that is no request, or one that comes too early
    │   ├── MethodNotFound          -32601
    │   ├── InvalidParams           -32602  the message names the offending field
    │   └── CursorExpired           -31010  that part of the log was compacted
    ├── the peer may not
    │   ├── AuthRequired            -32000
    │   ├── NotFound                -32002  unknown, killed, or somebody else's
    │   ├── NotPermitted            -31004  role, access or identity
    │   └── GrantRefused            -31006  not within the grant; `kind` says on which ground
    ├── not now
    │   ├── RequestCancelled        -32800
    │   ├── SessionLimit            -31001
    │   ├── QueueFull               -31002
    │   ├── Busy                    -31003
    │   ├── SessionState            -31005  the verb does not fit the session's state
    │   │   └── Stopping            -31005  the daemon ends: ask the next one
    │   └── Overloaded              -31008  too many requests open, or too fast
    └── our side broke
        ├── InternalError           -32603  the message is a log reference
        ├── StorageError            -31007  the write did not happen
        └── TurnFailed              -31009  `kind` says what failed

`error.data` is exactly `{code, retryable}`: a message never carries an id, a path, a limit
that the peer has no business to know, or the text of a foreign exception. Only `session/status`
says again which `sessionId` it was asked for, as the Agent Client Protocol wants it there. A code
that this version does not know arrives as a plain `RpcError`.
"""

import msgspec
from msgspec import UNSET, UnsetType


class ErrorData(msgspec.Struct, frozen=True, rename="camel"):
    """The `data` member of an error response: a stable word, and whether trying again can help."""

    code: str
    retryable: bool = False
    session_id: str | UnsetType = UNSET


class ErrorObject(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `error` member of a response (JSON-RPC 2.0, section 5.1)."""

    code: int
    message: str = ""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class RpcError(Exception):
    """An error response, raised where it is noticed and turned into a message in one place."""

    code: int = -32603
    kind: str = "internal"
    retryable: bool = False
    summary: str = "Internal error"
    session_id: str | UnsetType = UNSET

    def __init__(self, message: str | None = None, *, kind: str | None = None) -> None:
        super().__init__(message or self.summary)
        self.message = message or self.summary
        if kind is not None:
            self.kind = kind

    def to_object(self) -> ErrorObject:
        """Shape it for the wire."""
        data = msgspec.json.encode(ErrorData(self.kind, self.retryable, self.session_id))
        return ErrorObject(self.code, self.message, msgspec.Raw(data))


class ParseError(RpcError):
    code, kind, summary = -32700, "parse_error", "Parse error"


class InvalidRequest(RpcError):
    code, kind, summary = -32600, "invalid_request", "Invalid request"


class MethodNotFound(RpcError):
    code, kind, summary = -32601, "method_not_found", "Method not found"


class InvalidParams(RpcError):
    code, kind, summary = -32602, "invalid_params", "Invalid params"


class CursorExpired(RpcError):
    code, kind, summary = -31010, "cursor_expired", "That part of the log was compacted"


class AuthRequired(RpcError):
    code, kind, summary = -32000, "auth_required", "Authentication required"


class NotFound(RpcError):
    code, kind, summary = -32002, "not_found", "Resource not found"

    @classmethod
    def asked_for(cls, session_id: str) -> "NotFound":
        """The error that says again which session was asked for."""
        error = cls()
        error.session_id = session_id
        return error


class NotPermitted(RpcError):
    code, kind, summary = -31004, "not_permitted", "Not permitted"


class GrantRefused(RpcError):
    """What a grant does not permit. The sentence is one of a few, and all that is told."""

    code, kind, summary = -31006, "not_found", "session not found"

    def __init__(self, message: str | None = None, *, kind: str | None = None) -> None:
        super().__init__(message or _WHAT_IS_REFUSED.get(kind or self.kind), kind=kind)
        self.retryable = self.kind in _PASSING_REFUSALS


_WHAT_IS_REFUSED = {
    "not_found": "session not found",
    "expired": "session expired",
    "budget": "session budget exceeded",
    "tool": "tool not authorized in session",
    "closed": "session already closed",
    "rate": "session rate limit exceeded",
    "too_many": "too many concurrent sessions",
    "paused": "session paused",
}
_PASSING_REFUSALS = {"rate", "too_many", "paused"}


class RequestCancelled(RpcError):
    code, kind, summary = -32800, "request_cancelled", "Request cancelled"


class SessionLimit(RpcError):
    code, kind, retryable, summary = -31001, "session_limit", True, "Too many sessions"


class QueueFull(RpcError):
    code, kind, retryable, summary = (
        -31002,
        "queue_full",
        True,
        "The session's queue is full",
    )


class Busy(RpcError):
    code, kind, retryable, summary = -31003, "busy", True, "The session is busy"


class SessionState(RpcError):
    code, kind, summary = (
        -31005,
        "session_state",
        "The session's state does not allow that",
    )


class Stopping(SessionState):
    kind, retryable, summary = "stopping", True, "The daemon is stopping"


class Overloaded(RpcError):
    code, kind, retryable, summary = (
        -31008,
        "overloaded",
        True,
        "Too many requests at once",
    )


class InternalError(RpcError):
    code, kind, summary = -32603, "internal", "Internal error"


class StorageError(RpcError):
    code, kind, retryable, summary = (
        -31007,
        "storage",
        True,
        "storage write-through failed",
    )


class TurnFailed(RpcError):
    code, kind, summary = -31009, "agent_failed", "The turn failed"

    def __init__(self, message: str | None = None, *, kind: str | None = None) -> None:
        super().__init__(message or _WHAT_FAILED.get(kind or self.kind), kind=kind)
        self.retryable = self.kind in _PASSING_FAILURES


_WHAT_FAILED = {
    "provider_auth": "The model provider does not accept the key, or there is none",
    "provider_rate": "The model provider takes no more requests for now",
    "provider_unavailable": "The model provider cannot be reached or is out of order",
    "provider_protocol": "The model provider did not answer as it should",
    "provider_timeout": "The model provider took too long",
    "agent_lost": "The session's agent is gone",
}
_PASSING_FAILURES = {"provider_rate", "provider_unavailable", "provider_timeout"}


_BY_CODE: dict[int, type[RpcError]] = {
    error.code: error
    for error in (
        ParseError, InvalidRequest, MethodNotFound, InvalidParams, CursorExpired, AuthRequired,
        NotFound, NotPermitted, GrantRefused, RequestCancelled, SessionLimit, QueueFull, Busy,
        SessionState, Overloaded, InternalError, StorageError, TurnFailed,
    )
}  # fmt: skip


def from_object(error: ErrorObject) -> RpcError:
    """Turn a received error back into the exception it stands for."""
    found = _BY_CODE.get(error.code, RpcError)(error.message or None)
    found.code = error.code
    if error.data is not msgspec.UNSET:
        try:
            data = msgspec.json.decode(error.data, type=ErrorData)
        except msgspec.MsgspecError:
            return found  # another program's data: its shape is its own
        found.kind, found.retryable = data.code, data.retryable
    return found

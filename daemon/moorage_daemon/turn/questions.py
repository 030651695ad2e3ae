"""What a question about a tool call looks like: to clients, in the log, and how its end is said."""

import msgspec

from moorage_daemon.store.model import AskBody
from moorage_daemon.turn.asks import Decision
from moorage_protocol.acp import PermissionKind, PermissionOption, ToolCall, ToolCallFields
from moorage_protocol.jsonrpc import encode


OPTIONS = [
    PermissionOption(option_id="allow", name="Allow", kind=PermissionKind.ALLOW_ONCE),
    PermissionOption(option_id="always", name="Always allow", kind=PermissionKind.ALLOW_ALWAYS),
    PermissionOption(option_id="reject", name="Reject", kind=PermissionKind.REJECT_ONCE),
]


def as_call(fields: ToolCallFields) -> ToolCall:
    """A call as it is first shown."""
    return ToolCall(**{name: getattr(fields, name) for name in fields.__struct_fields__})


def ask_body(fields: ToolCallFields, limit: float, now: float) -> AskBody:
    """The record of a question about it; `limit` is in seconds, 0 for none."""
    return AskBody(
        tool_call_id=fields.tool_call_id,
        title=fields.title or "",
        tool_call=msgspec.Raw(encode(fields)),
        options=[msgspec.Raw(encode(option)) for option in OPTIONS],
        expires_at=now + limit if limit else None,
    )


def said(decision: Decision) -> str:
    """The end of a question in words, for the user and the agent."""
    match decision:
        case Decision.ALLOWED:
            return "Allowed."
        case Decision.REJECTED:
            return "Rejected by the user."
        case Decision.TIMED_OUT:
            return "Nobody answered in time."
        case Decision.LET_PASS:
            return "Allowed: nobody answered in time."
        case Decision.CANCELLED:
            return "Cancelled."

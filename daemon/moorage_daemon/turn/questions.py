"""A question about a tool call: how it looks to clients and in the log, and how it ends."""

from collections.abc import Callable

import msgspec
import trio

from moorage_daemon.store.model import AnswerBody, AskBody, Kind
from moorage_daemon.turn.asks import Ask, Decision
from moorage_daemon.turn.scene import Scene
from moorage_protocol.acp import PermissionKind, PermissionOption, ToolCall, ToolCallFields
from moorage_protocol.config import Asked as WhoIsAsked, OnTimeout
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


async def put(
    scene: Scene,
    generation: int,
    fields: ToolCallFields,
    allowed: Callable[[PermissionKind | None], None] | None = None,
) -> Decision:
    """Put a question about a call, and wait for its end; cancelled, that is its end.

    `allowed` is told of a yes in the tick of the answer, with what was chosen, None if nobody
    chose. Silence approves only where the session says so when it is put and when it is over.
    """
    limit = scene.confirmation.timeout_seconds or 0.0
    approves = _silence_approves(scene)

    def record(decision: Decision, option: PermissionOption | None, by: str | None) -> None:
        body = AnswerBody(
            tool_call_id=fields.tool_call_id,
            outcome="selected" if option is not None else decision.value,
            option_id=option.option_id if option is not None else None,
            by=by,
        )
        scene.log.append(Kind.ANSWER, body, generation=generation)
        if decision.allows and allowed is not None:
            allowed(option.kind if option is not None else None)

    only = scene.record.owner if scene.confirmation.ask is WhoIsAsked.OWNER else None
    ask = Ask(fields.tool_call_id, generation, OPTIONS, record, only)
    scene.asks.add(ask)
    body = ask_body(fields, limit, scene.log.writes.now())
    scene.log.append(Kind.ASK, body, generation=generation)
    try:
        with trio.move_on_after(limit or float("inf")):
            await ask.decided.wait()
        is_approved = approves and _silence_approves(scene)
        ask.settle(Decision.LET_PASS if is_approved else Decision.TIMED_OUT, None, None)
    finally:
        ask.settle(Decision.CANCELLED, None, None)
        scene.asks.close(ask)
    assert ask.decision is not None
    return ask.decision


def _silence_approves(scene: Scene) -> bool:
    return scene.confirmation.on_timeout is OnTimeout.APPROVE


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

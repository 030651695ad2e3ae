"""What is told of a refusal, and what is not (TE-01 to TE-03)."""

import json

import msgspec
import pytest

from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_protocol.errors import from_object


TEXTS = {
    RefusalKind.NOT_FOUND: "session not found",
    RefusalKind.EXPIRED: "session expired",
    RefusalKind.BUDGET: "session budget exceeded",
    RefusalKind.TOOL: "tool not authorized in session",
    RefusalKind.CLOSED: "session already closed",
    RefusalKind.RATE: "session rate limit exceeded",
    RefusalKind.AGENT_MISMATCH: "session not found",
    RefusalKind.STORAGE: "storage write-through failed",
    RefusalKind.TOO_MANY: "too many concurrent sessions",
    RefusalKind.PAUSED: "session paused",
}
CODES = {kind: kind.value for kind in RefusalKind} | {RefusalKind.AGENT_MISMATCH: "not_found"}
PASSING = {RefusalKind.RATE, RefusalKind.TOO_MANY, RefusalKind.PAUSED, RefusalKind.STORAGE}
MARKERS = ("sess-9f", "sekret_tool", 77231, "agent-7c")


def refusal(kind: RefusalKind) -> Refused:
    session, tool, limit, agent = MARKERS
    return Refused(kind, grant=session, tool=tool, limit=limit, actual=agent)


@pytest.mark.parametrize("kind", RefusalKind)
def test_te01_text_is_exactly_this(kind: RefusalKind) -> None:
    assert str(refusal(kind)) == TEXTS[kind]


@pytest.mark.parametrize("kind", RefusalKind)
def test_te02_nothing_inside_is_told(kind: RefusalKind) -> None:
    found = refusal(kind)
    sent = msgspec.json.encode(found.told.to_object()).decode()

    for marker in MARKERS:
        assert str(marker) not in str(found)
        assert str(marker) not in sent
    assert json.loads(sent)["data"] == {"code": CODES[kind], "retryable": kind in PASSING}
    assert json.loads(sent)["code"] == (-31007 if kind is RefusalKind.STORAGE else -31006)


@pytest.mark.parametrize("kind", RefusalKind)
def test_te03_everything_inside_is_in_the_operators_log(kind: RefusalKind) -> None:
    shown = repr(refusal(kind))

    for marker in MARKERS:
        assert str(marker) in shown


def test_foreign_grant_is_told_like_a_missing_one() -> None:
    missing, foreign = (
        refusal(kind).told.to_object()
        for kind in (RefusalKind.NOT_FOUND, RefusalKind.AGENT_MISMATCH)
    )

    assert msgspec.json.encode(missing) == msgspec.json.encode(foreign)


@pytest.mark.parametrize("kind", RefusalKind)
def test_refusal_survives_the_wire(kind: RefusalKind) -> None:
    told = refusal(kind).told

    received = from_object(told.to_object())

    assert type(received) is type(told)
    assert (received.kind, received.retryable) == (told.kind, told.retryable)

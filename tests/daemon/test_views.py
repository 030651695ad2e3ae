"""Usage and verification reports: what the log says of a session, in pages."""

from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from msgspec.structs import replace

from moorage_daemon.agents.port import ModelCall
from moorage_daemon.identity import Principal
from moorage_daemon.store.model import CostBody, Entry, Kind, Totals, added
from moorage_daemon.store.port import Change
from moorage_protocol.acp import Cost
from moorage_protocol.errors import InvalidParams, NotFound, TurnFailed
from moorage_protocol.moorage import NO_TOKENS, Outcome, Role, TokenUsage
from moorage_protocol.views import (
    Check,
    CheckStatus,
    Context,
    ReportsResult,
    TracesResult,
    UsageResult,
    Verification,
)
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Act, Lever
from tests.daemon.store.samples import raw
from tests.daemon.twin import Client


simulated_clock = pytest.mark.trio(run=simulated)


def took(asked: int, answered: int, **known: Any) -> Act:
    """The act of telling what an answer of a model took."""
    tokens = TokenUsage(input_tokens=asked, output_tokens=answered)
    return lambda stage: stage.tell_usage(ModelCall("one", "small", tokens, **known))


def verified(*checks: Check, risks: tuple[str, ...] = ()) -> Act:
    return lambda stage: stage.report(Verification(subject="build", checks=checks, risks=risks))


async def usage(client: Client, session: str, **page: Any) -> UsageResult:
    params = {"sessionId": session, **page}
    return await client.call("_moorage/session/usage", params, UsageResult)


async def reports(client: Client, session: str, **page: Any) -> ReportsResult:
    params = {"sessionId": session, **page}
    return await client.call("_moorage/session/reports", params, ReportsResult)


async def turn(daemon: Daemon, client: Client, session: str, *acts: Act) -> None:
    """One turn of the puppet that does so."""
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    for act in acts:
        await performance.do(act)
    performance.finish()
    await reply.result()


# ---- usage


@simulated_clock
async def test_a_new_session_took_nothing(client: Client) -> None:
    session = await client.new()

    found = await usage(client, session)

    assert found == UsageResult(
        context=Context(used=0, size=200_000, fraction=0.0, turns=0), tokens=NO_TOKENS, records=[]
    )


@simulated_clock
async def test_answers_add_up_and_each_is_on_record(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await turn(daemon, client, session, took(50, 50), took(60, 10, micros=1500, window=400))
    await turn(daemon, client, session, took(100, 0, micros=2_000_000, window=200))

    found = await usage(client, session)

    assert found.context == Context(used=100, size=200, fraction=0.5, turns=2)
    assert found.tokens == TokenUsage(input_tokens=210, output_tokens=60)
    assert found.cost == Cost(amount=2.0015)
    assert [(row.generation, row.tokens.input_tokens, row.micros) for row in found.records] == [
        (1, 50, None),
        (1, 60, 1500),
        (2, 100, 2_000_000),
    ]
    first, second = await client.turns(session)
    assert first.verdict is not None
    assert second.verdict is not None
    assert first.verdict.usage == TokenUsage(input_tokens=110, output_tokens=60)
    assert second.verdict.usage == TokenUsage(input_tokens=100, output_tokens=0)
    [row] = (await client.live()).sessions
    assert row.cost == found.cost


@simulated_clock
async def test_the_cost_so_far_is_told_to_every_client(daemon: Daemon) -> None:
    plain = await daemon.connect(plain=True)
    session = await plain.new()
    await turn(
        daemon, plain, session, took(5, 5, window=100, micros=250_000), took(7, 3, window=99)
    )

    updates = [p["update"] for p in plain.of_session(session)]
    told = [u for u in updates if u["sessionUpdate"] == "usage_update"]
    cost = {"amount": 0.25, "currency": "USD"}
    assert told == [
        {"sessionUpdate": "usage_update", "used": 10, "size": 100, "cost": cost},
        {"sessionUpdate": "usage_update", "used": 10, "size": 99, "cost": cost},
    ]


@simulated_clock
async def test_the_sums_in_the_head_are_those_of_the_log_after_any_crash(
    daemon: Daemon, client: Client
) -> None:
    """Head and entry are one commit: no prefix of the commits has one without the other."""
    session = await client.new()
    for number in range(1, 6):
        await turn(daemon, client, session, took(number, 1, micros=number), took(1, number))

    image = await daemon.image()
    for _ in range(2):
        async with open_daemon(image) as restarted:
            stored = await restarted.store.inner.load(session)
            assert stored is not None
            found = await usage(await restarted.connect(), session, limit=1000)
            sums = Totals()
            for row in found.records:
                sums = Totals(
                    tokens=sums.tokens + row.tokens,
                    micros=(sums.micros or 0) + (row.micros or 0),
                )
            assert stored.head.totals.tokens == sums.tokens
            assert stored.head.totals.micros == sums.micros == 15


@simulated_clock
async def test_a_context_length_of_the_session_stands_in_for_an_unknown_window(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new(config={"maxContextLength": 1000})
    await turn(daemon, client, session, took(90, 10))

    assert (await usage(client, session)).context == Context(
        used=100, size=1000, fraction=0.1, turns=1
    )


@given(st.lists(st.tuples(st.integers(0, 2**40), st.none() | st.integers(0, 2**40))))
def test_totals_are_sums_whatever_comes(calls: list[tuple[int, int | None]]) -> None:
    totals = Totals()
    for tokens, micros in calls:
        asked = TokenUsage(input_tokens=tokens, output_tokens=1, cache_read_tokens=tokens // 2)
        totals = added(totals, CostBody(provider="p", model="m", tokens=asked, micros=micros))

    priced = [micros for _, micros in calls if micros is not None]
    assert totals.micros == (sum(priced) if priced else None)
    assert totals.tokens.input_tokens == sum(tokens for tokens, _ in calls)
    assert totals.tokens.output_tokens == len(calls)


# ---- tool calls


async def traces(client: Client, session: str, **page: Any) -> TracesResult:
    params = {"sessionId": session, **page}
    return await client.call("_moorage/session/traces", params, TracesResult)


@simulated_clock
async def test_tool_calls_are_traced_with_how_they_ended_and_how_long_they_took(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    slow, asking = Lever(holds=True), Lever(asks=True)
    pulled = performance.begin(slow.call())
    await trio.sleep(1.5)
    slow.release.set()
    await pulled.wait()
    performance.begin(asking.call("B"))
    await client.question()
    await client.cancel(session)
    await reply.result()

    first, second = (await traces(client, session)).traces

    assert (first.tool, first.status, first.duration_ms, first.output_bytes) == (
        "Lever",
        "completed",
        1500,
        len("Pulled."),
    )
    assert (second.tool, second.status, second.duration_ms) == ("Lever", "cancelled", None)
    assert [first.generation, second.generation] == [1, 1]
    assert (first.tool_call_id, second.tool_call_id) == ("call-1-1", "call-1-2")


# ---- reports


@pytest.mark.parametrize(
    ("checks", "risks", "status"),
    [
        ([], (), "skipped"),
        (["passed"], (), "passed"),
        (["passed", "failed"], (), "failed"),
        (["needs_review", "failed"], ("a risk",), "failed"),
        (["passed", "needs_review"], (), "needs_review"),
        (["skipped"], (), "needs_review"),
        (["passed"], ("a risk",), "needs_review"),
        ([], ("a risk",), "needs_review"),
    ],
)
def test_a_report_is_what_its_required_checks_come_to(
    checks: list[str], risks: tuple[str, ...], status: str
) -> None:
    required = tuple(Check("id", "test", status=CheckStatus(s), required=True) for s in checks)

    assert Verification(subject="s", checks=required, risks=risks).status == status


def test_an_optional_check_that_is_open_keeps_nothing_from_passing() -> None:
    done = Check("a", "test", status=CheckStatus.PASSED, required=True)
    optional = Check("b", "test", status=CheckStatus.SKIPPED)

    assert Verification(subject="s", checks=(done, optional)).status is CheckStatus.PASSED
    failed = replace(optional, status=CheckStatus.FAILED)
    assert Verification(subject="s", checks=(done, failed)).status is CheckStatus.FAILED


@simulated_clock
async def test_reports_of_a_session_are_read_back_in_their_order(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    passed = Check("check:test", "test", "Run tests", CheckStatus.PASSED, required=True)
    await turn(daemon, client, session, verified(passed))
    await turn(daemon, client, session, verified(replace(passed, evidence=("log",)), risks=("r",)))

    first, second = (await reports(client, session)).reports

    assert first.report == Verification(subject="build", checks=(passed,))
    assert (first.status, first.generation) == (CheckStatus.PASSED, 1)
    assert second.report.checks[0].evidence == ("log",)
    assert (second.status, second.generation) == (CheckStatus.NEEDS_REVIEW, 2)


@simulated_clock
async def test_a_report_longer_than_a_message_is_not_recorded(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    performance.begin(verified(Check("c", "test", "d" * 300_000)))

    with pytest.raises(TurnFailed):
        await reply.result()
    [record] = await client.turns(session)
    assert record.verdict is not None
    assert record.verdict.outcome is Outcome.FAILED
    assert (await reports(client, session)).reports == []


# ---- pages


@simulated_clock
async def test_rows_come_in_pages(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await turn(daemon, client, session, *(took(number, 0) for number in range(1, 8)))

    seen: list[int] = []
    after: int | None = 0
    pages = 0
    while after is not None:
        page = await usage(client, session, after=after, limit=3)
        seen += [row.tokens.input_tokens for row in page.records]
        after, pages = page.next, pages + 1

    assert (seen, pages) == ([1, 2, 3, 4, 5, 6, 7], 3)


@simulated_clock
async def test_a_row_of_a_newer_version_is_passed_over(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await turn(daemon, client, session, took(1, 0), verified())
    store = await daemon.image()
    last = await store.inner.tip(session) or 0
    odd = [
        Entry(last + 1, 0.0, Kind.COST, raw({"provider": {"name": "one"}})),
        Entry(last + 2, 0.0, Kind.REPORT, raw({"subject": "s", "checks": {"a": 1}})),
        Entry(last + 3, 0.0, Kind.REPORT, raw({"subject": "later", "more": "than known"})),
    ]
    await store.inner.commit([Change(session, tuple(odd))])

    async with open_daemon(store) as restarted:
        other = await restarted.connect()
        assert len((await usage(other, session)).records) == 1
        found = [row.report.subject for row in (await reports(other, session)).reports]
        assert found == ["build", "later"]


@simulated_clock
@pytest.mark.parametrize("method", ["usage", "traces", "reports"])
async def test_a_page_has_a_bound_and_a_stranger_gets_none(
    daemon: Daemon, client: Client, method: str
) -> None:
    session = await client.new()
    stranger = await daemon.connect(Principal("other", Role.OWNER))

    for page in ({"limit": 0}, {"limit": 1001}, {"after": -1}):
        params = {"sessionId": session, **page}
        with pytest.raises(InvalidParams):
            await client.call(f"_moorage/session/{method}", params, dict[str, Any])
    with pytest.raises(NotFound):
        await stranger.call(f"_moorage/session/{method}", {"sessionId": session}, dict[str, Any])


@simulated_clock
async def test_a_killed_session_still_says_what_it_took(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await turn(daemon, client, session, took(1, 2), verified())
    await client.kill(session)

    assert len((await usage(client, session)).records) == 1
    assert len((await reports(client, session)).reports) == 1

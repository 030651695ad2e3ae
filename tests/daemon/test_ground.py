"""Sessions that stand on grants: what their tools may do, what that costs, and how it ends."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import CallRefused, ModelCall
from moorage_daemon.grant_settings import CredentialSource, GrantSettings
from moorage_daemon.grants.calls import Call, Shell
from moorage_daemon.identity import Principal
from moorage_daemon.store.model import ChargeBody, Kind
from moorage_daemon.tools.port import Bench, NotBegun, Report, ToolFailed
from moorage_daemon.turn.calls import MAX_IN_VAIN
from moorage_daemon.turn.enforcement import MAX_ARGUMENTS
from moorage_daemon.turn.standing import StandingAnswers
from moorage_protocol.acp import Diff, Meta, StopReason, ToolCallContent
from moorage_protocol.config import Permissions
from moorage_protocol.errors import GrantRefused, InvalidParams, RpcError, TurnFailed
from moorage_protocol.grants import Sensitivity
from moorage_protocol.moorage import (
    Cause,
    NewResultMeta,
    Outcome,
    Posture,
    PromptVerdict,
    Role,
    TokenUsage,
    Verdict,
)
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.ledger.test_grants import ask, create, heads
from tests.daemon.puppet import Lever, LeverArguments, Performance
from tests.daemon.twin import Client, Json, PromptReply


pytestmark = pytest.mark.trio(run=simulated)

OTHER = Principal("other", Role.OWNER)
ANY = {"tools": None}


class Pull:
    """One turn in which a lever is pulled."""

    def __init__(self, daemon: Daemon, client: Client, session: str) -> None:
        self.daemon, self.client, self.session = daemon, client, session
        self.refusals: list[str] = []
        self.reports: list[Report] = []
        self.reply: PromptReply
        self.performance: Performance

    async def begin(self) -> "Pull":
        self.reply = self.client.prompt(self.session)
        self.performance = await self.daemon.puppet.next()
        return self

    async def call(self, lever: Any, label: str = "A") -> None:
        """Have the agent call it; what it is told is kept."""
        await self.performance.do(lambda stage: self._call(stage, lever, label))

    def start(self, lever: Any, label: str = "A") -> None:
        self.performance.begin(lambda stage: self._call(stage, lever, label))

    async def _call(self, stage: Any, lever: Any, label: str) -> None:
        try:
            self.reports.append(await stage.call(lever, LeverArguments(label)))
        except CallRefused as refusal:
            self.refusals.append(str(refusal))

    async def end(self) -> Verdict:
        if not self.performance.is_over:
            self.performance.finish()
        return await self.verdict()

    async def verdict(self) -> Verdict:
        with contextlib.suppress(RpcError):
            await self.reply.result()
        verdict = (await self.client.turns(self.session))[-1].verdict
        assert verdict is not None
        return verdict


@pytest.fixture
def lever() -> Lever:
    return Lever()


async def standing(daemon: Daemon, client: Client, **grant: Any) -> tuple[str, str]:
    """A session on a grant of its own; gives both ids."""
    result = await client.start_new(grant=grant).result()
    assert isinstance(result.meta, Meta)
    assert isinstance(result.meta.moorage, NewResultMeta)
    assert result.meta.moorage.grant_id is not None
    return result.session_id, result.meta.moorage.grant_id


async def turn(daemon: Daemon, client: Client, session: str) -> Pull:
    return await Pull(daemon, client, session).begin()


async def used(client: Client, grant: str) -> Json:
    found: Json = (await ask(client, "get", grantId=grant))["used"]
    return found


def results(client: Client, session: str) -> list[Json]:
    return [entry for entry in client.of_session(session) if entry.get("kind") == "result"]


def charges(daemon: Daemon, grant: str) -> list[tuple[int, set[str]]]:
    """The charges of calls, and which kinds of entries were in the same commit."""
    found: list[tuple[int, set[str]]] = []
    for commit in daemon.store.commits:
        kinds = {str(entry.kind) for change in commit for entry in change.entries}
        for change in commit:
            for entry in change.entries:
                if change.session == grant and entry.kind == Kind.CHARGE:
                    body = msgspec.json.decode(entry.body, type=ChargeBody)
                    found.append((body.calls, kinds))
    return found


# ---- what a call costs


async def test_call_is_charged_in_the_commit_of_its_intent(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    session, grant = await standing(daemon, client, tools=["Lever"], budget={"calls": 3})

    pull = await turn(daemon, client, session)
    await pull.call(lever)
    await pull.end()

    [(calls, kinds)] = charges(daemon, grant)
    assert calls == 1
    assert "intent" in kinds
    assert (await used(client, grant))["calls"] == 1


async def test_call_too_many_ends_the_turn_with_what_there_is_no_more_of(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    session, grant = await standing(daemon, client, tools=["Lever"], budget={"calls": 2})

    pull = await turn(daemon, client, session)
    await pull.call(lever)
    await pull.call(lever)
    pull.start(lever)
    result = await pull.reply.result()

    assert result.stop_reason is StopReason.MAX_TURN_REQUESTS
    assert isinstance(result.meta, Meta)
    told = result.meta.moorage
    assert isinstance(told, PromptVerdict)
    assert (told.outcome, told.cause, told.stop) == (Outcome.CANCELLED, Cause.BUDGET, "calls")
    assert len(lever.pulled) == 2
    assert await used(client, grant) | {"seconds": 0} == {
        "calls": 2,
        "tokens": 0,
        "micros": 0,
        "seconds": 0,
        "refused": 1,
    }


async def test_tool_that_is_not_on_the_list_is_refused_in_a_few_words(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    session, grant = await standing(daemon, client, tools=["Lever(A)"], budget={"calls": 77_777})

    pull = await turn(daemon, client, session)
    await pull.call(lever, "B")
    await pull.call(lever, "A")
    verdict = await pull.end()

    assert pull.refusals == ["tool not authorized in session"]
    assert lever.pulled == ["A"]
    assert verdict.outcome is Outcome.COMPLETED
    [refused, _] = results(client, session)
    assert (refused["status"], refused["code"]) == ("refused", "tool")
    sent = [m for m in client.messages if "grantId" not in str(m)]
    assert not any(grant in str(m) or "77777" in str(m.get("params", "")) for m in sent)


@pytest.mark.parametrize("why", ["grant", "rules", "argument", "preview", "start"])
async def test_turn_that_makes_nothing_but_calls_in_vain_fails(
    daemon: Daemon, client: Client, lever: Lever, why: str
) -> None:
    tools = ["Other"] if why == "grant" else None
    session, grant = await standing(daemon, client, tools=tools, budget={"calls": 5})
    if why == "rules":
        await set_rules(client, session, {"deny": ["Lever"], "default": None})
    vain = {"preview": Unready(), "start": Stuck()}.get(why, lever)
    label = "x" * MAX_ARGUMENTS if why == "argument" else "A"

    pull = await turn(daemon, client, session)
    for _ in range(MAX_IN_VAIN - 1):
        await pull.call(vain, label)
    is_going_on = not pull.performance.is_over
    pull.start(vain, label)
    with pytest.raises(TurnFailed):
        await pull.reply.result()

    verdict = await pull.verdict()
    assert is_going_on
    assert (verdict.outcome, verdict.code) == (Outcome.FAILED, "agent_failed")
    assert lever.pulled == []
    assert (await used(client, grant))["calls"] == 0


class Unready(Lever):
    """A lever that says before that it cannot be pulled."""

    async def preview(self, arguments: LeverArguments, bench: Bench) -> Sequence[ToolCallContent]:
        raise ToolFailed("It cannot be pulled.")


async def test_call_that_is_started_ends_a_row_of_calls_in_vain(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    session, _ = await standing(daemon, client, tools=["Lever(A)"])

    pull = await turn(daemon, client, session)
    for _ in range(3):
        for _ in range(MAX_IN_VAIN - 1):
            await pull.call(lever, "B")
        await pull.call(lever, "A")
    verdict = await pull.end()

    assert verdict.outcome is Outcome.COMPLETED
    assert lever.pulled == ["A"] * 3


async def test_refusals_of_a_turn_are_counted_on_disk_once(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    session, grant = await standing(daemon, client, tools=["Other"])
    before = heads(daemon, grant)

    pull = await turn(daemon, client, session)
    for _ in range(50):
        await pull.call(lever)
    meanwhile = heads(daemon, grant)
    await pull.end()

    assert (meanwhile, heads(daemon, grant)) == (before, before + 1)
    async with open_daemon(await daemon.image()) as again:
        assert (await used(await again.connect(), grant))["refused"] == 50


async def test_rate_limit_refuses_and_the_turn_goes_on(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    session, _ = await standing(daemon, client, tools=None, rate={"calls": 1, "perSeconds": 10})

    pull = await turn(daemon, client, session)
    await pull.call(lever)
    await pull.call(lever)
    await trio.sleep(11)
    await pull.call(lever)
    verdict = await pull.end()

    assert pull.refusals == ["session rate limit exceeded"]
    assert len(lever.pulled) == 2
    assert verdict.outcome is Outcome.COMPLETED


async def test_session_without_a_grant_is_free(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    pull = await turn(daemon, client, await client.new())
    await pull.call(lever)

    assert (await pull.end()).outcome is Outcome.COMPLETED
    assert lever.pulled == ["A"]


async def test_sessions_on_one_grant_share_what_it_has(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    grant = await create(client, agent="puppet", tools=["Lever"], budget={"calls": 2})
    sessions = [await client.new(grant={"grantId": grant}) for _ in range(2)]

    pulls = [await turn(daemon, client, session) for session in sessions]
    for pull in pulls:
        await pull.call(lever)
    pulls[0].start(lever)

    assert (await pulls[0].verdict()).cause is Cause.BUDGET
    assert (await pulls[1].end()).outcome is Outcome.COMPLETED
    assert len(lever.pulled) == 2


# ---- what never started


async def test_call_that_never_started_is_given_back(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    session, grant = await standing(daemon, client, tools=None, budget={"calls": 5})
    pull = await turn(daemon, client, session)
    await wait_all_tasks_blocked()
    daemon.store.hold()
    pull.start(lever)
    await wait_all_tasks_blocked()

    killed = client.start_kill(session)
    await wait_all_tasks_blocked()
    daemon.store.release()
    await killed.result()

    assert lever.pulled == []
    assert (await used(client, grant))["calls"] == 0


async def test_call_is_given_back_when_the_mode_forbids_it_meanwhile(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    session, grant = await standing(daemon, client, tools=None, budget={"calls": 5})
    pull = await turn(daemon, client, session)
    await wait_all_tasks_blocked()
    daemon.store.hold()
    pull.start(lever)
    await wait_all_tasks_blocked()

    client.start(
        "session/set_mode", {"sessionId": session, "modeId": Posture.READ_ONLY}, dict[str, Any]
    )
    await wait_all_tasks_blocked()
    daemon.store.release()
    await pull.end()

    assert lever.pulled == []
    assert len(pull.refusals) == 1
    assert (await used(client, grant))["calls"] == 0


async def test_call_is_not_started_on_a_grant_that_was_closed_meanwhile(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    grant = await create(client, agent="puppet", tools=None)
    session = await client.new(grant={"grantId": grant})
    pull = await turn(daemon, client, session)
    await wait_all_tasks_blocked()
    daemon.store.hold()
    pull.start(lever)
    await wait_all_tasks_blocked()

    client.start("_moorage/grant/close", {"grantId": grant}, dict[str, Any])
    await wait_all_tasks_blocked()
    daemon.store.release()

    assert (await pull.verdict()).cause is Cause.SESSION_REMOVED
    assert lever.pulled == []


class Stuck(Lever):
    """A lever that does not begin."""

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        raise NotBegun("It is stuck.")


async def test_tool_that_does_not_begin_costs_nothing(daemon: Daemon, client: Client) -> None:
    session, grant = await standing(daemon, client, tools=None, budget={"calls": 5})

    pull = await turn(daemon, client, session)
    await pull.call(Stuck())
    await pull.end()

    assert pull.reports == [Report("It is stuck.", ok=False)]
    assert (await used(client, grant))["calls"] == 0


async def test_call_of_unknown_outcome_stays_paid(daemon: Daemon, client: Client) -> None:
    session, grant = await standing(daemon, client, tools=None, budget={"calls": 5})
    pull = await turn(daemon, client, session)
    pull.start(Lever(holds=True))
    await wait_all_tasks_blocked()

    async with open_daemon(await daemon.image()) as again:
        after = await again.connect()
        [result] = await after.entries(session, kinds=["result"])
        assert result["status"] == "unknown_outcome"
        assert (await used(after, grant))["calls"] == 1


# ---- asking


async def test_grant_is_asked_before_the_user_is(daemon: Daemon, client: Client) -> None:
    session, _ = await standing(daemon, client, tools=[])

    pull = await turn(daemon, client, session)
    await pull.call(Lever(asks=True))

    assert client.questions == []
    assert pull.refusals == ["tool not authorized in session"]


async def test_answer_is_too_late_when_nothing_is_left_meanwhile(
    daemon: Daemon, client: Client
) -> None:
    lever = Lever(asks=True)
    grant = await create(client, agent="puppet", tools=None, budget={"calls": 1})
    session = await client.new(grant={"grantId": grant})
    pull = await turn(daemon, client, session)
    pull.start(lever)
    question = await client.question()

    await ask(client, "use", grantId=grant, agent="puppet", tool="x")
    client.choose(question)

    assert (await pull.verdict()).cause is Cause.BUDGET
    assert lever.pulled == []
    assert "intent" not in client.kinds(session)


async def test_charge_answer_and_intent_are_one_commit(daemon: Daemon, client: Client) -> None:
    session, grant = await standing(daemon, client, tools=None)
    pull = await turn(daemon, client, session)
    pull.start(Lever(asks=True))
    client.choose(await client.question())
    await wait_all_tasks_blocked()
    await pull.end()

    [(_, kinds)] = charges(daemon, grant)
    assert {"answer", "intent", "charge"} <= kinds


# ---- tokens, money, time


def answer(tokens: int, micros: int | None = 0) -> ModelCall:
    usage = TokenUsage(input_tokens=tokens - 1, output_tokens=1)
    return ModelCall("p", "m", usage, micros, window=1000)


async def test_budget_of_tokens_ends_the_turn(daemon: Daemon, client: Client) -> None:
    session, grant = await standing(daemon, client, tools=[], budget={"tokens": 100})

    pull = await turn(daemon, client, session)
    await pull.performance.do(lambda stage: stage.tell_usage(answer(60)))
    pull.performance.begin(lambda stage: stage.tell_usage(answer(60)))
    result = await pull.reply.result()

    assert result.stop_reason is StopReason.MAX_TOKENS
    verdict = await pull.verdict()
    assert (verdict.cause, verdict.stop) == (Cause.BUDGET, "tokens")
    assert (await used(client, grant))["tokens"] == 120
    with pytest.raises(GrantRefused, match="session budget exceeded"):
        await client.prompt(session).result()


async def test_usage_says_what_it_cost(daemon: Daemon, client: Client) -> None:
    session, _ = await standing(daemon, client, tools=[], budget={"micros": 10_000_000})

    pull = await turn(daemon, client, session)
    await pull.performance.do(lambda stage: stage.tell_usage(answer(60, 1_250_000)))
    await pull.end()

    [update] = [
        params["update"]
        for params in client.of_session(session)
        if params.get("update", {}).get("sessionUpdate") == "usage_update"
    ]
    assert update["cost"] == {"amount": 1.25, "currency": "USD"}


@pytest.mark.parametrize("micros", [20, None])
async def test_budget_of_money_ends_the_turn_also_where_nobody_knows_the_price(
    daemon: Daemon, client: Client, micros: int | None
) -> None:
    session, _ = await standing(daemon, client, tools=[], budget={"micros": 20})

    pull = await turn(daemon, client, session)
    pull.performance.begin(lambda stage: stage.tell_usage(answer(60, micros)))

    verdict = await pull.verdict()
    assert (verdict.cause, verdict.stop, verdict.stop_reason) == (
        Cause.BUDGET,
        "micros",
        StopReason.MAX_TOKENS,
    )


async def test_time_of_the_grant_ends_the_turn(daemon: Daemon, client: Client) -> None:
    session, _ = await standing(daemon, client, tools=[], timeLimitSeconds=3)
    pull = await turn(daemon, client, session)
    began = trio.current_time()

    verdict = await pull.verdict()

    assert (verdict.outcome, verdict.cause) == (Outcome.CANCELLED, Cause.SESSION_EXPIRED)
    assert trio.current_time() - began == pytest.approx(3, abs=0.1)
    with pytest.raises(GrantRefused, match="session expired"):
        await client.prompt(session).result()


async def test_time_that_was_raised_is_waited_for(daemon: Daemon, client: Client) -> None:
    session, grant = await standing(daemon, client, tools=[], timeLimitSeconds=3)
    pull = await turn(daemon, client, session)
    began = trio.current_time()
    await ask(client, "raise", grantId=grant, timeLimitSeconds=6)
    await trio.sleep(4)

    await pull.verdict()

    assert trio.current_time() - began == pytest.approx(6, abs=0.1)


async def test_prompts_own_time_limit_still_counts(daemon: Daemon, client: Client) -> None:
    session, _ = await standing(daemon, client, tools=[], timeLimitSeconds=3)
    reply = client.prompt(session, timeoutSeconds=2)

    assert (await reply.verdict()).cause is Cause.TURN_TIMEOUT


async def test_waiting_prompt_ends_when_its_ground_is_gone(daemon: Daemon, client: Client) -> None:
    session, _ = await standing(daemon, client, tools=[], timeLimitSeconds=3)
    first, second = client.prompt(session), client.prompt(session)

    assert (await first.verdict()).cause is Cause.SESSION_EXPIRED
    assert (await second.verdict()).cause is Cause.SESSION_EXPIRED
    assert len(daemon.puppet.performances) <= 1


# ---- the tree


async def family(daemon: Daemon, client: Client) -> tuple[Pull, Pull, str, str]:
    """A turn that delegated to another one; gives both, and the ids of their grants."""
    session, grant = await standing(daemon, client, tools=None, budget={"calls": 10})
    child = await ask(
        client, "create", agent="helper", tools=None, parent=grant, budget={"calls": 4}
    )
    parent = await turn(daemon, client, session)
    below = await client.new(agent="helper", grant={"grantId": child["grantId"]})
    return parent, await Pull(daemon, client, below).begin(), grant, child["grantId"]


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    """A daemon with a second agent, which the same puppet plays."""
    async with open_daemon() as running:
        running.app.desk.agents["helper"] = running.puppet
        yield running


async def test_cancel_goes_down_the_tree(daemon: Daemon, client: Client) -> None:
    parent, child, _, grant = await family(daemon, client)

    await client.cancel(parent.session)

    assert (await parent.verdict()).cause is Cause.CLIENT_RPC
    assert (await child.verdict()).cause is Cause.PARENT_CANCELLED
    assert (await ask(client, "get", grantId=grant))["state"] == "active"


async def test_kill_goes_down_the_tree_and_ends_the_grants(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    parent, child, above, below = await family(daemon, client)

    await client.kill(parent.session)

    assert (await child.verdict()).cause is Cause.PARENT_CANCELLED
    assert (await ask(client, "get", grantId=above))["cause"] == "admin_kill"
    assert (await ask(client, "get", grantId=below))["cause"] == "parent_cancelled"
    with pytest.raises(GrantRefused, match="session already closed"):
        await client.prompt(child.session).result()


async def test_deactivation_stops_the_agents_turns_and_those_below(
    daemon: Daemon, client: Client
) -> None:
    parent, child, _, _ = await family(daemon, client)

    await ask(client, "closeForAgent", agent="puppet")

    assert (await parent.verdict()).cause is Cause.AGENT_DEACTIVATED
    assert (await child.verdict()).cause is Cause.PARENT_CANCELLED


async def test_end_of_the_grant_above_ends_the_turn_below(daemon: Daemon, client: Client) -> None:
    root = await create(client, agent="a", tools=None, budget={})
    session, _ = await standing(daemon, client, tools=None, parent=root)
    pull = await turn(daemon, client, session)

    await ask(client, "close", grantId=root)

    assert (await pull.verdict()).cause is Cause.PARENT_CANCELLED


async def test_delete_ends_the_grant_that_was_made_for_the_session(
    daemon: Daemon, client: Client
) -> None:
    session, own = await standing(daemon, client, tools=[])
    shared = await create(client, agent="puppet")
    other = await client.new(grant={"grantId": shared})

    await client.delete(session)
    await client.delete(other)

    assert (await ask(client, "get", grantId=own))["cause"] == "session_removed"
    assert (await ask(client, "get", grantId=shared))["state"] == "active"


@pytest.mark.parametrize("end", ["kill", "delete"])
async def test_grant_made_for_a_session_that_does_not_stand_on_it_ends_with_it(
    client: Client, end: str
) -> None:
    session = await client.new()
    grant = await create(client, sessionId=session)
    other = await create(client, sessionId=await client.new())

    await getattr(client, end)(session)

    cause = {"kill": "admin_kill", "delete": "session_removed"}[end]
    assert (await ask(client, "get", grantId=grant))["cause"] == cause
    assert (await ask(client, "get", grantId=other))["state"] == "active"


async def test_session_that_was_put_away_comes_back_on_its_grant(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    session, grant = await standing(daemon, client, tools=["Lever"], budget={"calls": 2})
    pull = await turn(daemon, client, session)
    await pull.call(lever)
    await pull.end()

    await client.close(session)
    await client.load(session)
    pull = await turn(daemon, client, session)
    await pull.call(lever)
    pull.start(lever)

    assert (await pull.verdict()).stop == "calls"
    assert (await used(client, grant))["calls"] == 2
    await ask(client, "close", grantId=grant)
    with pytest.raises(GrantRefused):
        await client.prompt(session).result()


# ---- making


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"tools": [], "budget": {"call": 1}},
        {"tools": [], "budgets": {}},
        {"tools": ["Bash(*)"]},
        {"tools": [], "agent": "somebody"},
        {"tools": [], "grantId": "a" * 26},
        {"grantId": 5},
    ],
)
async def test_grant_that_says_nothing_clear_is_refused_and_no_session_made(
    daemon: Daemon, client: Client, wish: Json
) -> None:
    with pytest.raises(InvalidParams):
        await client.start_new(grant=wish).result()

    assert await client.listed() == []
    assert (await ask(client, "list"))["grants"] == []


async def test_foreign_closed_and_unfit_grants_carry_no_session(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect(OTHER)
    mine, closed = await create(client, agent="puppet"), await create(client, agent="puppet")
    unfit = await create(client, agent="reader")
    await ask(client, "close", grantId=closed)

    for who, grant, text in [
        (other, mine, "session not found"),
        (client, closed, "session already closed"),
        (client, unfit, "session not found"),
        (client, "b" * 26, "session not found"),
    ]:
        with pytest.raises(GrantRefused, match=text):
            await who.start_new(grant={"grantId": grant}).result()


async def test_session_whose_grant_is_somebody_elses_may_do_nothing(
    daemon: Daemon, client: Client, lever: Lever
) -> None:
    grant = await create(client, agent="puppet", tools=None)
    other = await daemon.connect(OTHER)
    session = await other.new()
    live = daemon.session(session)
    live.record.head = replace(live.head, grant=grant)  # as out of a file

    with pytest.raises(GrantRefused, match="session not found"):
        await other.prompt(session).result()


# ---- what is too sensitive


@pytest.fixture
async def careful() -> AsyncIterator[Daemon]:
    """A daemon that knows which levers are secret."""
    rules = {Sensitivity.RESTRICTED: ("Lever(secret)",), Sensitivity.PUBLIC: ("Lever(open)",)}
    async with open_daemon(grants=GrantSettings(sensitivity=rules)) as running:
        yield running


@pytest.mark.parametrize(
    ("ceiling", "told"),
    [
        ("public", [False, False, True]),
        ("internal", [False, True, True]),
        ("confidential", [False, True, True]),
        ("restricted", [True, True, True]),
    ],
)
async def test_result_above_the_ceiling_is_withheld_and_on_record(
    careful: Daemon, ceiling: str, told: list[bool]
) -> None:
    client = await careful.connect()
    session, _ = await standing(careful, client, tools=None, ceiling=ceiling)

    pull = await turn(careful, client, session)
    for label in ("secret", "usual", "open"):
        await pull.call(Lever(), label)
    await pull.end()

    assert [report.text == "Pulled." for report in pull.reports] == told
    assert ["code" not in result for result in results(client, session)] == told
    shown = str([m for m in client.messages if "withheld" in str(m)])
    assert ("withheld" in shown) is (not all(told))


# ---- credentials


SECRET = "a secret that nobody reads"


class Teller(Lever):
    """A lever that tells all it was given, also while it works."""

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        self.pulled.append(arguments.label)
        bench.progress(f"working with {bench.secrets}")
        return Report(f"it is {bench.secrets['key']}, {bench.secrets}")


@pytest.fixture
async def keeper(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    """A daemon that knows three credentials, one of which cannot be read."""
    monkeypatch.setenv("THE_KEY", SECRET)
    sources = {
        "key": CredentialSource(env="THE_KEY"),
        "other": CredentialSource(env="THE_KEY"),
        "missing": CredentialSource(env="NOT_THERE"),
    }
    async with open_daemon(grants=GrantSettings(credentials=sources)) as running:
        yield running


async def test_credential_is_filled_in_late_and_told_nowhere(keeper: Daemon) -> None:
    client = await keeper.connect()
    session, _ = await standing(keeper, client, tools=None, credentials=["key"])
    teller = Teller(asks=True)

    pull = await turn(keeper, client, session)
    pull.start(teller, "with ${CRED:key}")
    question = await client.question()
    client.choose(question)
    await wait_all_tasks_blocked()
    await pull.end()

    assert teller.pulled == ["with ${CRED:key}"]
    [report] = pull.reports
    assert report.text == "it is ${CRED:key}, {'key': '${CRED:key}'}"
    assert SECRET not in str(client.messages)
    assert not any(SECRET.encode() in entry.body for entry in await keeper.log(session))
    assert "working with" in str(client.messages)


class Differ(Lever):
    """A lever that shows before what it will change."""

    def __init__(self, old: str) -> None:
        super().__init__()
        self.old = old

    async def preview(self, arguments: LeverArguments, bench: Bench) -> Sequence[ToolCallContent]:
        return (Diff(path="/a.txt", old_text=self.old, new_text="new"),)


@pytest.mark.parametrize(("old", "is_shown"), [(f"key: {SECRET}", False), ("key: none", True)])
async def test_credential_is_not_told_by_what_is_shown_before(
    keeper: Daemon, old: str, *, is_shown: bool
) -> None:
    client = await keeper.connect()
    session, _ = await standing(keeper, client, tools=None, credentials=["key"])
    differ = Differ(old)

    pull = await turn(keeper, client, session)
    await pull.call(differ)
    await pull.end()

    assert differ.pulled == ["A"]
    assert (old in str(client.messages)) is is_shown
    assert any(old.encode() in entry.body for entry in await keeper.log(session)) is is_shown


@pytest.mark.parametrize("grant", [{"tools": None}, {"tools": None, "credentials": ["key"]}, None])
async def test_credential_that_the_grant_does_not_list_is_not_filled_in(
    keeper: Daemon, grant: Json | None
) -> None:
    client = await keeper.connect()
    session = await client.new(grant=grant)
    teller = Teller()

    pull = await turn(keeper, client, session)
    await pull.call(teller, "with ${CRED:other}")
    await pull.end()

    assert teller.pulled == []
    assert pull.refusals == ["tool not authorized in session"]


class Commander(Teller):
    """A lever whose label is a command."""

    def about(self, arguments: LeverArguments, cwd: str) -> Call:
        return Call("Bash", Shell(arguments.label))


@pytest.mark.parametrize(
    ("command", "is_asked"),
    [
        ("curl -H 'key: ${CRED:key}' host", False),
        ("curl -u ${CRED:key} host", False),
        ("curl -u ${CRED:key}; rm x", True),
        ("curl -u ${HOME} host", True),
    ],
)
async def test_rule_about_a_command_permits_the_credentials_that_its_grant_lists(
    keeper: Daemon, command: str, *, is_asked: bool
) -> None:
    client = await keeper.connect()
    session, _ = await standing(keeper, client, tools=["Bash"], credentials=["key"])
    await set_rules(client, session, {"allow": ["Bash(curl:*)"], "default": None})
    commander = Commander(asks=True)

    pull = await turn(keeper, client, session)
    pull.start(commander, command)
    await wait_all_tasks_blocked()

    assert bool(client.questions) is is_asked
    assert commander.pulled == ([] if is_asked else [command])


async def test_credential_that_is_not_to_be_had_starts_nothing_and_costs_nothing(
    keeper: Daemon,
) -> None:
    client = await keeper.connect()
    session, grant = await standing(keeper, client, tools=None, credentials=["missing"])
    teller = Teller()

    pull = await turn(keeper, client, session)
    await pull.call(teller, "with ${CRED:missing}")
    await pull.end()

    assert teller.pulled == []
    assert [report.ok for report in pull.reports] == [False]
    assert (await used(client, grant))["calls"] == 0


# ---- rules below the grant


async def test_rules_of_session_and_settings_decide_together(lever: Lever) -> None:
    settings = Permissions(deny=("Lever(never)",), ask=("Lever(risky)",), default=None)
    async with open_daemon(permissions=settings) as daemon:
        client = await daemon.connect()
        config = {"permissions": {"allow": ["Lever"], "deny": ["Lever(not here)"]}}
        session = await client.new(config=config)
        asking = Lever(asks=True)
        pull = await turn(daemon, client, session)

        await pull.call(asking, "plain")
        await pull.call(asking, "never")
        await pull.call(asking, "not here")
        pull.start(asking, "risky")
        client.choose(await client.question())
        await pull.end()

    assert asking.pulled == ["plain", "risky"]
    assert pull.refusals == ["Not done: the rules of this session forbid it."] * 2


async def test_what_is_stored_never_widens_what_holds_now(daemon: Daemon, client: Client) -> None:
    session = await client.new(config={"permissions": {"allow": ["Lever"]}})
    pull = await turn(daemon, client, session)
    await pull.call(Lever(asks=True))
    await pull.end()
    image = await daemon.image()

    async with open_daemon(image, permissions=Permissions(deny=("Lever",))) as again:
        after = await again.connect()
        await after.load(session)
        pull = await turn(again, after, session)
        lever = Lever(asks=True)
        await pull.call(lever)
        await pull.end()

    assert lever.pulled == []


async def test_rules_allow_nothing_that_the_mode_refuses(daemon: Daemon, client: Client) -> None:
    session = await client.new(config={"permissions": {"allow": ["Lever"]}})
    await client.call(
        "session/set_mode", {"sessionId": session, "modeId": Posture.READ_ONLY}, dict[str, Any]
    )
    lever = Lever()

    pull = await turn(daemon, client, session)
    await pull.call(lever)
    await pull.end()

    assert lever.pulled == []


async def test_rule_that_changes_while_somebody_is_asked_counts(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    lever = Lever(asks=True)
    pull = await turn(daemon, client, session)
    pull.start(lever)
    question = await client.question()

    await client.call(
        "_moorage/session/config/set",
        {"sessionId": session, "config": {"permissions": {"deny": ["Lever"]}}},
        dict[str, Any],
    )
    client.choose(question)
    await wait_all_tasks_blocked()
    await pull.end()

    assert lever.pulled == []


# ---- an answer that stands, and rules


async def set_rules(client: Client, session: str, rules: Json | None) -> None:
    await client.call(
        "_moorage/session/config/set",
        {"sessionId": session, "config": {"permissions": rules}},
        dict[str, Any],
    )


async def allow_always(daemon: Daemon, client: Client, session: str, lever: Lever) -> None:
    """Have the lever pulled once, allowed for good by whoever is asked."""
    pull = await turn(daemon, client, session)
    pull.start(lever)
    client.choose(await client.question(len(client.questions) + 1), "always")
    await wait_all_tasks_blocked()
    await pull.end()


async def asked_again(daemon: Daemon, client: Client, session: str, lever: Lever) -> bool:
    """Call the lever in another turn, and reject it if that is a question."""
    before = len(client.questions)
    pull = await turn(daemon, client, session)
    pull.start(lever)
    await wait_all_tasks_blocked()
    is_asked = len(client.questions) > before
    if is_asked:
        client.choose(client.questions[-1], "reject")
        await wait_all_tasks_blocked()
    await pull.end()
    return is_asked


@pytest.mark.parametrize(
    ("rules", "is_asked"),
    [
        (None, False),
        ({"ask": ["Other"], "default": None}, False),
        ({"deny": ["Lever(B)"]}, False),  # and asks about the rest by default
        ({"ask": ["Lever"], "default": None}, True),
        ({"ask": ["Lever(A)"], "allow": ["Lever"]}, True),
    ],
)
async def test_rule_that_asks_does_so_whatever_was_allowed_for_good(
    daemon: Daemon, client: Client, rules: Json | None, *, is_asked: bool
) -> None:
    """Whether the rule was there before the answer, or came after it."""
    before, after = await client.new(config={"permissions": rules}), await client.new()
    lever = Lever(asks=True)
    await allow_always(daemon, client, before, lever)
    await allow_always(daemon, client, after, lever)
    await set_rules(client, after, rules)

    found = [await asked_again(daemon, client, session, lever) for session in (before, after)]

    assert found == [is_asked, is_asked]
    assert len(lever.pulled) == (2 if is_asked else 4)


async def test_rule_that_asks_does_so_after_a_restart(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    lever = Lever(asks=True)
    await allow_always(daemon, client, session, lever)
    image = await daemon.image()

    for rules, is_asked in ((Permissions(ask=("Lever",), default=None), True), (None, False)):
        async with open_daemon(image, permissions=rules or Permissions(default=None)) as again:
            after = await again.connect()
            await after.load(session)
            assert await asked_again(again, after, session, lever) is is_asked


async def test_rule_that_denies_beats_what_was_allowed_for_good_before_and_after_it(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    lever = Lever(asks=True)
    await allow_always(daemon, client, session, lever)

    for rules in ({"deny": ["Lever"], "default": None}, {"ask": ["Lever"], "deny": ["Lever"]}):
        await set_rules(client, session, rules)
        assert not await asked_again(daemon, client, session, lever)
        assert lever.pulled == ["A"]
    await set_rules(client, session, None)
    assert not await asked_again(daemon, client, session, lever)
    assert lever.pulled == ["A", "A"], "the control: without the rule it stands"


@pytest.mark.parametrize("rules", [{"ask": ["Lever"], "default": None}, {"deny": ["Lever"]}])
async def test_rule_that_comes_while_an_answer_is_looked_up_counts(
    daemon: Daemon, client: Client, rules: Json
) -> None:
    session = await client.new()
    lever = Lever(asks=True)
    await allow_always(daemon, client, session, lever)
    image = await daemon.image()

    async with open_daemon(image) as again:
        after = await again.connect()
        await after.load(session)

        class Slow(StandingAnswers):
            async def covers(self, rule: str) -> bool:
                await set_rules(after, session, rules)
                return await super().covers(rule)

        again.session(session).standing = Slow(again.store, session)
        await asked_again(again, after, session, lever)

    assert lever.pulled == ["A"]


@pytest.mark.parametrize("rules", [{"allow": ["Bash(*)"]}, {"deny": [""]}, {"ask": ["a b"]}])
async def test_rules_that_cannot_be_read_are_refused(client: Client, rules: Json) -> None:
    with pytest.raises(InvalidParams):
        await client.new(config={"permissions": rules})


# ---- who is asked, and what silence means


async def test_silence_approves_only_where_that_is_written_and_is_on_record(
    daemon: Daemon, client: Client
) -> None:
    config = {"confirmation": {"timeoutSeconds": 2, "onTimeout": "approve"}}
    session = await client.new(config=config)
    lever = Lever(asks=True)

    pull = await turn(daemon, client, session)
    await pull.call(lever)
    await pull.end()

    assert lever.pulled == ["A"]
    [answered] = [e for e in client.of_session(session) if e.get("kind") == "answer"]
    [intent] = [e for e in client.of_session(session) if e.get("kind") == "intent"]
    assert answered["outcome"] == intent["decision"] == "approved_by_timeout"


async def test_silence_approves_nothing_where_that_is_written_no_longer(
    daemon: Daemon, client: Client
) -> None:
    config = {"confirmation": {"timeoutSeconds": 2, "onTimeout": "approve"}}
    session = await client.new(config=config)
    lever = Lever(asks=True)
    pull = await turn(daemon, client, session)
    pull.start(lever)
    await client.question()

    await client.call(
        "_moorage/session/config/set",
        {"sessionId": session, "config": {"confirmation": None}},
        dict[str, Any],
    )
    await trio.sleep(3)
    await pull.end()

    assert lever.pulled == []
    assert pull.refusals == ["Nobody answered in time."]


async def test_only_the_owner_is_asked_where_that_is_written(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new(config={"confirmation": {"ask": "owner"}})
    other = await daemon.connect()
    await other.attach(session)
    lever = Lever(asks=True)
    pull = await turn(daemon, client, session)
    pull.start(lever)
    question = await client.question()
    await wait_all_tasks_blocked()

    assert other.questions == []
    with pytest.raises(RpcError):
        await other.respond(session, question.call)
    client.choose(question)
    await pull.end()
    assert lever.pulled == ["A"]

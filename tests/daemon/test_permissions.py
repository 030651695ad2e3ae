"""Questions: who is asked, whose answer counts, and what becomes of those nobody answers."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.identity import Principal
from moorage_daemon.turn.asks import Ask, Asks
from moorage_daemon.turn.questions import OPTIONS
from moorage_protocol import jsonrpc
from moorage_protocol.errors import InternalError, NotFound, NotPermitted, RequestCancelled
from moorage_protocol.moorage import (
    Cause,
    Outcome,
    RespondOutcome,
    RespondResult,
    Role,
    State,
    Verdict,
)
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever, Performance
from tests.daemon.twin import PATIENCE, Client, Json, PromptReply, Question


pytestmark = pytest.mark.trio(run=simulated)


class Scene:
    """A session in which a lever may be pulled once somebody allows it."""

    def __init__(self, daemon: Daemon, client: Client, session: str) -> None:
        self.daemon, self.client, self.session = daemon, client, session
        self.lever = Lever(asks=True)
        self.reply: PromptReply
        self.performance: Performance

    async def ask(self) -> Question:
        """Have the agent call the lever; gives the question as the client has it."""
        self.reply = self.client.prompt(self.session)
        self.performance = await self.daemon.puppet.next()
        asked = len(self.client.questions)
        self.performance.begin(self.lever.call())
        return await self.client.question(asked + 1)

    async def end(self) -> Verdict:
        """Let the turn end; gives its verdict."""
        if not self.performance.is_over:
            self.performance.finish()
        with trio.fail_after(PATIENCE):
            await self.reply.arrived.wait()
        verdict = (await self.client.turns(self.session))[-1].verdict
        assert verdict is not None
        return verdict

    def entries(self, kind: str) -> list[Json]:
        return [p for p in self.client.of_session(self.session) if p.get("kind") == kind]

    def answers(self) -> list[tuple[str, str | None, str | None]]:
        """The recorded answers: outcome, option, by whom."""
        return [(a["outcome"], a.get("optionId"), a.get("by")) for a in self.entries("answer")]


@pytest.fixture
async def scene(daemon: Daemon, client: Client) -> Scene:
    return Scene(daemon, client, await client.new())


# ---- asking and answering


async def test_an_allowed_call_is_made_once(scene: Scene) -> None:
    question = await scene.ask()
    assert scene.lever.pulled == []
    assert question.options == ["allow", "always", "reject"]
    assert (await scene.client.live()).sessions[0].state is State.REQUIRES_ACTION

    scene.client.choose(question)
    await wait_all_tasks_blocked()

    assert scene.lever.pulled == ["A"]
    assert scene.answers() == [("selected", "allow", scene.client.tui)]
    assert (await scene.end()).tool_calls.completed == 1


async def test_decision_and_intent_are_one_commit(scene: Scene) -> None:
    question = await scene.ask()
    scene.client.choose(question)
    await wait_all_tasks_blocked()

    [commit] = [
        change
        for commit in scene.daemon.store.commits
        for change in commit
        if any(entry.kind == "answer" for entry in change.entries)
    ]

    assert [entry.kind for entry in commit.entries] == ["answer", "intent"]


async def test_a_rejected_call_is_not_made_and_the_agent_is_told(scene: Scene) -> None:
    question = await scene.ask()

    scene.client.choose(question, "reject")
    await wait_all_tasks_blocked()

    assert scene.lever.pulled == []
    assert scene.answers() == [("selected", "reject", scene.client.tui)]
    assert [e["status"] for e in scene.entries("result")] == ["refused"]
    assert scene.entries("intent") == []
    assert scene.performance.is_over, "CallRefused went through the puppet, as it caught nothing"
    assert (await scene.end()).outcome is Outcome.FAILED


async def test_every_controller_is_asked_the_first_to_select_wins_and_others_are_retracted(
    scene: Scene,
) -> None:
    others = [await scene.daemon.connect() for _ in range(2)]
    for other in others:
        await other.attach(scene.session)
    question = await scene.ask()
    asked = [await other.question() for other in others]
    assert {q.call for q in asked} == {question.call}

    others[0].choose(asked[0], "allow")
    await wait_all_tasks_blocked()

    assert scene.answers() == [("selected", "allow", others[0].tui)]
    assert scene.client.retracted == [question.id]
    assert others[0].retracted == []
    assert others[1].retracted == [asked[1].id]
    scene.client.choose(question, "reject")
    await wait_all_tasks_blocked()
    assert scene.lever.pulled == ["A"]
    assert len(scene.answers()) == 1


async def test_two_answers_at_once_make_one_decision(scene: Scene) -> None:
    other = await scene.daemon.connect()
    await other.attach(scene.session)
    question, also = await scene.ask(), await other.question()

    other.choose(also, "reject")
    scene.client.choose(question, "allow")
    await wait_all_tasks_blocked()

    [(outcome, option, by)] = scene.answers()
    assert outcome == "selected"
    assert (by == other.tui) == (option == "reject")
    assert scene.lever.pulled == (["A"] if option == "allow" else [])


async def test_observers_are_not_asked_and_may_not_answer(scene: Scene) -> None:
    observer = await scene.daemon.connect()
    await observer.attach(scene.session, access="observer")
    question = await scene.ask()
    await wait_all_tasks_blocked()

    assert observer.questions == []
    with pytest.raises(NotPermitted):
        await observer.respond(scene.session, question.call)
    for refused in (
        observer.prompt(scene.session).result,
        lambda: observer.cancel(scene.session),
        lambda: observer.configure(scene.session, model="m"),
        lambda: observer.withdraw(scene.session, 1),
        lambda: observer.close(scene.session),
        lambda: observer.delete(scene.session),
        lambda: observer.load(scene.session),
    ):
        with pytest.raises(NotPermitted):
            await refused()
    assert scene.answers() == []


async def test_a_controller_that_becomes_an_observer_is_asked_no_more(scene: Scene) -> None:
    other = await scene.daemon.connect()
    await other.attach(scene.session)
    await scene.ask()
    question = await other.question()

    await other.attach(scene.session, access="observer")
    other.choose(question)
    await wait_all_tasks_blocked()

    assert other.retracted == [question.id]
    assert scene.answers() == []
    assert scene.lever.pulled == []


async def test_an_observer_that_becomes_a_controller_is_asked(scene: Scene) -> None:
    other = await scene.daemon.connect()
    await other.attach(scene.session, access="observer")
    await scene.ask()

    await other.attach(scene.session, access="controller")
    other.choose(await other.question())
    await wait_all_tasks_blocked()

    assert scene.lever.pulled == ["A"]


async def test_a_plain_client_is_asked_as_well(daemon: Daemon) -> None:
    plain = await daemon.connect(plain=True)
    scene = Scene(daemon, plain, await plain.new())

    plain.choose(await scene.ask())
    await wait_all_tasks_blocked()

    assert scene.lever.pulled == ["A"]


# ---- answers that are none


async def test_when_everybody_answers_cancelled_the_turn_is_cancelled(scene: Scene) -> None:
    other = await scene.daemon.connect()
    await other.attach(scene.session)
    question, also = await scene.ask(), await other.question()

    scene.client.dismiss(question)
    await wait_all_tasks_blocked()
    assert scene.answers() == [], "one of two: the question stays open"
    assert not scene.performance.was_cancelled
    other.dismiss(also)

    verdict = await scene.end()
    assert (verdict.outcome, verdict.cause, verdict.by) == (
        Outcome.CANCELLED,
        Cause.CLIENT_RPC,
        other.tui,
    )
    assert scene.answers() == [("cancelled", None, None)]
    assert scene.lever.pulled == []


async def test_after_one_has_cancelled_the_other_can_still_decide(scene: Scene) -> None:
    other = await scene.daemon.connect()
    await other.attach(scene.session)
    question, also = await scene.ask(), await other.question()

    scene.client.dismiss(question)
    await wait_all_tasks_blocked()
    other.choose(also)
    await wait_all_tasks_blocked()

    assert scene.lever.pulled == ["A"]


async def test_an_answered_cancel_request_counts_as_cancelled(scene: Scene) -> None:
    """Some clients answer their own dismissal with the error that says so."""
    question = await scene.ask()

    scene.client.post(jsonrpc.encode_error(question.id, RequestCancelled()))

    assert (await scene.end()).cause is Cause.CLIENT_RPC


@pytest.mark.parametrize(
    "answer",
    [
        {"outcome": {"outcome": "selected", "optionId": "whatever"}},
        {"outcome": {"outcome": "selected"}},
        {"outcome": {"outcome": "perhaps"}},
        {"outcome": "allow"},
        {},
    ],
)
async def test_an_unknown_option_or_a_malformed_answer_withdraws_the_client(
    scene: Scene, answer: Json
) -> None:
    """The question stays open, and is put to whoever attaches."""
    question = await scene.ask()

    scene.client.answer(question, answer)
    await wait_all_tasks_blocked()

    assert scene.answers() == []
    assert scene.lever.pulled == []
    other = await scene.daemon.connect()
    await other.attach(scene.session)
    other.choose(await other.question())
    await wait_all_tasks_blocked()
    assert scene.lever.pulled == ["A"]


async def test_a_client_that_withdrew_does_not_keep_the_question_open(scene: Scene) -> None:
    """It was asked and is no longer; the only one who is has cancelled."""
    other = await scene.daemon.connect()
    await other.attach(scene.session)
    question, also = await scene.ask(), await other.question()

    scene.client.choose(question, "whatever")
    await wait_all_tasks_blocked()
    other.dismiss(also)

    assert (await scene.end()).cause is Cause.CLIENT_RPC


async def test_a_client_that_withdrew_is_asked_again_when_it_attaches_again(
    scene: Scene,
) -> None:
    scene.client.choose(await scene.ask(), "whatever")
    await wait_all_tasks_blocked()

    await scene.client.attach(scene.session)
    scene.client.choose(await scene.client.question(2))
    await wait_all_tasks_blocked()

    assert scene.lever.pulled == ["A"]


async def test_an_error_withdraws_the_client(scene: Scene) -> None:
    question = await scene.ask()

    scene.client.post(jsonrpc.encode_error(question.id, InternalError()))
    await wait_all_tasks_blocked()

    assert scene.answers() == []
    assert not scene.performance.was_cancelled
    assert await scene.client.respond(scene.session, question.call) is RespondOutcome.APPLIED


async def test_a_lost_connection_withdraws_the_client_and_the_question_stays(
    scene: Scene,
) -> None:
    await scene.ask()

    scene.client.leave()
    await trio.sleep(3600)

    other = await scene.daemon.connect()
    await other.attach(scene.session)
    other.choose(await other.question())
    await wait_all_tasks_blocked()
    assert scene.lever.pulled == ["A"]


async def test_a_client_that_detaches_is_part_of_the_question_no_more(scene: Scene) -> None:
    other = await scene.daemon.connect()
    await other.attach(scene.session)
    question, also = await scene.ask(), await other.question()

    await other.detach(scene.session)
    other.choose(also, "reject")
    await wait_all_tasks_blocked()
    assert scene.answers() == []
    assert other.retracted == [also.id]
    scene.client.dismiss(question)

    assert (await scene.end()).cause is Cause.CLIENT_RPC


async def test_a_client_cannot_answer_for_another(scene: Scene) -> None:
    """An answer counts only on the connection that was asked."""
    other = await scene.daemon.connect()
    question = await scene.ask()

    other.choose(question)
    other.choose(Question(1, scene.session, question.call, []))
    await wait_all_tasks_blocked()

    assert scene.answers() == []
    assert scene.lever.pulled == []


async def test_a_second_answer_to_one_question_is_dropped(scene: Scene) -> None:
    question = await scene.ask()
    scene.client.choose(question, "reject")
    scene.client.choose(question, "allow")
    await wait_all_tasks_blocked()

    assert scene.answers() == [("selected", "reject", scene.client.tui)]
    assert scene.lever.pulled == []


async def test_request_ids_begin_anywhere_and_are_never_used_twice(scene: Scene) -> None:
    other = await scene.daemon.connect()
    await other.attach(scene.session)
    first, there = await scene.ask(), await other.question()
    scene.client.choose(first)
    await scene.end()

    second = await scene.ask()

    assert second.id != first.id
    assert abs(there.id - first.id) > 1000, "two in 2**48 are never that close"


# ---- later comers


async def test_behaviour_13_whoever_attaches_later_is_asked_with_the_time_that_is_left() -> None:
    async with open_daemon(permission_timeout_seconds=60) as daemon:
        client = await daemon.connect()
        scene = Scene(daemon, client, await client.new())
        question = await scene.ask()
        start = daemon.sessions.committer.now()
        client.leave()
        await trio.sleep(20)
        other = await daemon.connect()

        snapshot = await other.attach(scene.session)
        again = await other.question()

        assert again.call == question.call
        [pending] = snapshot.pending_permissions
        assert pending.tool_call_id == question.call
        assert pending.expires_at == pytest.approx(start + 60)
        assert snapshot.state is State.REQUIRES_ACTION
        other.choose(again)
        await wait_all_tasks_blocked()
        assert scene.lever.pulled == ["A"]
        assert await other.respond(scene.session, question.call) is RespondOutcome.ALREADY


@pytest.mark.parametrize("way", ["load", "resume", "attach"])
async def test_a_question_is_put_once_however_one_comes_to_the_session(
    scene: Scene, way: str
) -> None:
    await scene.ask()
    other = await scene.daemon.connect()

    await getattr(other, way)(scene.session)
    await getattr(other, way)(scene.session)
    await wait_all_tasks_blocked()

    assert len(other.questions) == 1


async def test_a_client_that_replays_an_answered_question_is_not_asked(scene: Scene) -> None:
    scene.client.choose(await scene.ask())
    await scene.end()
    other = await scene.daemon.connect()

    await other.load(scene.session)

    assert other.kinds(scene.session).count("ask") == 1
    assert other.questions == []
    assert other.retracted == []


async def test_a_client_that_is_late_is_not_asked_what_is_decided_already(scene: Scene) -> None:
    late = await scene.daemon.connect()
    await late.attach(scene.session)
    late.stop_reading()
    for _ in range(5):  # as many writes as the transport takes, and one more
        late.start("_moorage/status", {}, dict[str, object])
        await wait_all_tasks_blocked()
    scene.client.choose(await scene.ask())
    await scene.end()

    late.read_on()
    await wait_all_tasks_blocked()

    assert late.kinds(scene.session).count("ask") == 1
    assert late.questions == []


# ---- time


async def test_behaviour_14_a_question_nobody_answers_is_timed_out_and_not_denied() -> None:
    async with open_daemon(permission_timeout_seconds=3) as daemon:
        client = await daemon.connect()
        scene = Scene(daemon, client, await client.new())
        question = await scene.ask()
        start = trio.current_time()

        await client.until(lambda: bool(scene.answers()))

        assert trio.current_time() - start == pytest.approx(3)
        assert scene.answers() == [("timed_out", None, None)]
        assert question.id in client.retracted
        results = [e["status"] for e in scene.entries("result")]
        assert results == ["refused"]
        said = [e["update"] for e in client.of_session(scene.session) if "update" in e]
        assert "Nobody answered in time." in str(said[-1])
        assert await client.respond(scene.session, question.call) is RespondOutcome.EXPIRED
        assert scene.lever.pulled == []


async def test_behaviour_12_a_turn_that_waits_for_an_answer_is_cancelled_at_once(
    scene: Scene,
) -> None:
    """The tool does not run, what was said stays, and everybody is told that it is settled."""
    scene.reply = scene.client.prompt(scene.session)
    scene.performance = await scene.daemon.puppet.next()
    await scene.performance.say("let me see")
    scene.performance.begin(scene.lever.call())
    question = await scene.client.question()
    start = trio.current_time()

    await scene.client.cancel(scene.session)
    told = await scene.reply.verdict()

    assert trio.current_time() - start < 0.1
    assert told.cause is Cause.CLIENT_RPC
    assert scene.lever.pulled == []
    assert scene.client.text(scene.session) == "let me see"
    assert scene.answers() == [("cancelled", None, None)]
    assert scene.client.retracted == [question.id]
    scene.client.choose(question)
    await wait_all_tasks_blocked()
    assert len(scene.answers()) == 1


# ---- always


async def test_always_is_remembered_for_the_same_call_and_no_other(scene: Scene) -> None:
    scene.client.choose(await scene.ask(), "always")
    await scene.end()

    scene.reply = scene.client.prompt(scene.session)
    performance = await scene.daemon.puppet.next()
    await performance.do(scene.lever.call())
    assert scene.lever.pulled == ["A", "A"]
    assert len(scene.client.questions) == 1
    performance.begin(scene.lever.call("B"))

    assert (await scene.client.question(2)).call
    assert scene.lever.pulled == ["A", "A"]


async def test_allow_once_is_asked_again(scene: Scene) -> None:
    scene.client.choose(await scene.ask(), "allow")
    await scene.end()

    again = await scene.ask()

    scene.client.choose(again, "reject")
    await wait_all_tasks_blocked()
    assert scene.lever.pulled == ["A"]


async def test_always_is_remembered_after_a_restart_and_a_park(
    daemon: Daemon, scene: Scene
) -> None:
    scene.client.choose(await scene.ask(), "always")
    await scene.end()
    await scene.client.close(scene.session)

    async with open_daemon(await daemon.image()) as restarted:
        for host in (daemon, restarted):
            client = await host.connect()
            lever = Lever(asks=True)
            client.prompt(scene.session)
            await (await host.puppet.next()).do(lever.call())
            assert lever.pulled == ["A"]
            assert client.questions == []


async def test_always_in_one_session_is_nothing_in_another(scene: Scene) -> None:
    scene.client.choose(await scene.ask(), "always")
    await scene.end()
    other = Scene(scene.daemon, scene.client, await scene.client.new())

    await other.ask()

    assert other.lever.pulled == []


# ---- answering from outside


async def test_respond_decides_like_an_answer_and_says_what_became_of_it(scene: Scene) -> None:
    other = await scene.daemon.connect()
    question = await scene.ask()

    assert await other.respond(scene.session, question.call, "nope") is RespondOutcome.UNKNOWN
    assert await other.respond(scene.session, "call-9-9") is RespondOutcome.UNKNOWN
    assert await other.respond(scene.session, question.call) is RespondOutcome.APPLIED
    assert await other.respond(scene.session, question.call) is RespondOutcome.ALREADY
    await wait_all_tasks_blocked()

    assert scene.answers() == [("selected", "allow", other.tui)]
    assert scene.client.retracted == [question.id]
    assert scene.lever.pulled == ["A"]


async def test_of_two_responses_in_one_write_the_first_is_applied(scene: Scene) -> None:
    """The agent has not even woken up when the second comes."""
    question = await scene.ask()
    params: Json = {"sessionId": scene.session, "toolCallId": question.call}
    frames = [
        scene.client.frame(
            "_moorage/permission/respond", params | {"optionId": option}, RespondResult
        )
        for option in ("reject", "allow")
    ]

    scene.client.post(*(frame for frame, _ in frames))

    outcomes = [(await reply.result()).outcome for _, reply in frames]
    assert outcomes == [RespondOutcome.APPLIED, RespondOutcome.ALREADY]
    assert scene.lever.pulled == []


async def test_respond_to_a_cancelled_question_is_expired(scene: Scene) -> None:
    question = await scene.ask()
    await scene.client.cancel(scene.session)
    await scene.reply.result()

    outcome = await scene.client.respond(scene.session, question.call)

    assert outcome is RespondOutcome.EXPIRED


async def test_so_many_settled_questions_are_remembered_and_no_more() -> None:
    asks = Asks()
    for number in range(2 * Asks.REMEMBERED):
        ask = Ask(f"call-{number}", 1, OPTIONS, _record_nothing)
        asks.add(ask)
        assert asks.select(ask.tool_call_id, "allow", "tui") is RespondOutcome.APPLIED
        asks.close(ask)

    outcomes = [
        asks.select(f"call-{number}", "allow", "tui") for number in range(2 * Asks.REMEMBERED)
    ]

    forgotten = [RespondOutcome.UNKNOWN] * Asks.REMEMBERED
    assert outcomes == forgotten + [RespondOutcome.ALREADY] * Asks.REMEMBERED


def _record_nothing(*_: object) -> None:
    """A question without a log."""


async def test_respond_of_another_principal_finds_nothing(scene: Scene) -> None:
    stranger = await scene.daemon.connect(Principal("ci", Role.OWNER))
    question = await scene.ask()

    with pytest.raises(NotFound):
        await stranger.respond(scene.session, question.call)

    assert scene.lever.pulled == []


async def test_a_question_of_the_agent_itself_is_a_yes_or_a_no(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    said: list[bool] = []
    for number, (option, yes) in enumerate((("allow", True), ("reject", False)), 1):

        async def ask(stage: object) -> None:
            said.append(await performance.stage.ask("shall I?"))

        done = performance.begin(ask)
        client.choose(await client.question(number), option)
        with trio.fail_after(PATIENCE):
            await done.wait()
        assert said[-1] is yes


async def test_several_questions_of_one_turn_are_open_side_by_side(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    lever = Lever(asks=True)

    async def both(stage: object) -> None:
        async with trio.open_nursery() as nursery:
            for label in "AB":
                nursery.start_soon(lever.call(label), performance.stage)

    performance.begin(both)
    first, second = await client.question(1), await client.question(2)
    assert first.call != second.call
    [row] = (await client.live()).sessions
    assert row.pending_permissions == 2

    client.choose(second, "allow")
    await wait_all_tasks_blocked()

    assert len(lever.pulled) == 1
    client.choose(first, "allow")
    await wait_all_tasks_blocked()
    assert sorted(lever.pulled) == ["A", "B"]

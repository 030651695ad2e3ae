"""The list of sessions, under the names of the first model of live sessions (S1 to S22).

There, a turn was a token in a map and ending it was a call of its own. Here "a token is
registered" is a turn that runs, "it fired" is that its scope was cancelled, and what was read from
a map of causes stands in the turn's verdict. Eviction and the cap on sessions, S10 and S11 and the
old form of S2, need parking under pressure, which does not exist.
"""

import pytest
import trio

from moorage_daemon.app import OWNER
from moorage_daemon.identity import Verb
from moorage_protocol.errors import NotFound, QueueFull, StorageError
from moorage_protocol.moorage import CancelOutcome, Cause, Outcome, OverridesPatch, State
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.twin import Client


pytestmark = pytest.mark.trio(run=simulated)


async def test_s1_insert_and_count(daemon: Daemon, client: Client) -> None:
    assert (await client.status()).sessions.live == 0

    await client.new()

    assert (await client.status()).sessions.live == 1


async def test_s2_insert_rejects_over_limit() -> None:
    """What has a limit today is a session's queue of prompts."""
    async with open_daemon(prompt_queue=1) as daemon:
        client = await daemon.connect()
        session = await client.new()
        running, waiting = client.prompt(session, "one"), client.prompt(session, "two")

        with pytest.raises(QueueFull):
            await client.prompt(session, "three").result()

        (await daemon.puppet.next()).finish()
        (await daemon.puppet.next()).finish()
        assert (await running.result()).stop_reason == (await waiting.result()).stop_reason
        assert len(daemon.puppet.performances) == 2


async def test_s2_a_refused_session_leaves_the_first_one_intact(daemon: Daemon) -> None:
    client = await daemon.connect()
    first = await client.new()
    daemon.store.fill()
    client.prompt(first)
    await trio.testing.wait_all_tasks_blocked()

    with pytest.raises(StorageError):
        await client.new()

    assert await client.listed() == [first]


async def test_s3_get_agent_returns_arc(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    find = daemon.sessions.find

    assert find(session, OWNER, Verb.ACT) is find(session, OWNER, Verb.ACT)
    with pytest.raises(NotFound):
        find("nonexistent", OWNER, Verb.ACT)


async def test_s4_set_overrides_applies_model_and_temperature_live(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()

    result = await client.configure(session, model="model-x", temperature=0.42)

    assert result.overrides.model == "model-x"
    assert result.overrides.temperature == 0.42
    assert result.applies == "now"
    assert (await client.live()).sessions[0].model == "model-x"
    client.prompt(session)
    assert (await daemon.puppet.next()).stage.overrides == result.overrides


async def test_s5_set_overrides_records_model_provider_without_rebuilding(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    before = daemon.session(session)

    result = await client.configure(session, model_provider="anthropic.default")

    assert result.overrides.model_provider == "anthropic.default"
    assert daemon.session(session) is before


async def test_s6_provider_switch_without_model_clears_prior_model(
    daemon: Daemon, client: Client
) -> None:
    """The name that is live follows: list and next turn have no model either."""
    session = await client.new(overrides={"model": "claude-opus-4-5"})

    result = await client.configure(session, model_provider="ollama.default")

    assert result.overrides.model_provider == "ollama.default"
    assert result.overrides.model is None
    assert (await client.live()).sessions[0].model is None
    client.prompt(session)
    assert (await daemon.puppet.next()).stage.overrides.model is None


async def test_s7_set_overrides_missing_session_is_none(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.configure("ghost", model="m")


async def test_s8_remove_cleans_up(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    prompt = client.prompt(session)
    performance = await daemon.puppet.next()

    await client.delete(session)

    assert performance.was_cancelled
    assert (await client.status()).sessions.live == 0
    with pytest.raises(NotFound):
        await client.cancel(session)
    assert (await prompt.result()).stop_reason == "cancelled"


async def test_s8_remove_is_the_cause_in_the_verdict(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    prompt = client.prompt(session)
    await daemon.puppet.next()

    await client.close(session)

    [turn] = await client.turns(session)
    assert turn.verdict is not None
    assert turn.verdict.cause is Cause.SESSION_REMOVED
    assert (await prompt.result()).stop_reason == "cancelled"


async def test_s9_remove_nonexistent_returns_false(daemon: Daemon, client: Client) -> None:
    """Removing what is not there is no error, as the Agent Client Protocol has it for delete."""
    await client.delete("ghost")

    with pytest.raises(NotFound):
        await client.close("ghost")
    assert not daemon.sessions.live


async def test_s12_cancel_token_lifecycle(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    prompt = client.prompt(session)
    performance = await daemon.puppet.next()
    turn = daemon.session(session).turn
    assert turn is not None
    assert not turn.cancel_scope.cancel_called

    fired = await client.cancel(session)
    await prompt.result()
    after = await client.cancel(session)

    assert fired.outcome is CancelOutcome.FIRED
    assert turn.cancel_scope.cancel_called
    assert performance.was_cancelled
    assert after.outcome is CancelOutcome.IDLE


async def test_s13_reregister_force_cancels_prior_turn(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    old = client.prompt(session, "old")
    await daemon.puppet.next()
    new = client.prompt(session, "new", onBusy="supersede")
    running = await daemon.puppet.next()

    assert running.prompt.text == "new"
    assert not running.was_cancelled
    first = await old.verdict()
    assert (first.outcome, first.cause) == (Outcome.CANCELLED, Cause.SUPERSEDED)
    stale = await client.cancel(session, generation=first.generation)
    assert stale.outcome is CancelOutcome.STALE
    assert not running.was_cancelled
    assert (await client.cancel(session)).outcome is CancelOutcome.FIRED
    second = await new.verdict()
    assert second.generation > first.generation
    assert second.cause is Cause.CLIENT_RPC


async def test_s14_stale_remove_is_a_noop(daemon: Daemon, client: Client) -> None:
    """A first turn that ends late, after its verdict, never touches the second."""
    session = await client.new()
    client.prompt(session, "stubborn")
    late = await daemon.puppet.next()
    late.dig_in()
    second = client.prompt(session, "second")
    await client.cancel(session, scope="current")
    running = await daemon.puppet.next()

    late.released.set()
    await trio.testing.wait_all_tasks_blocked()

    assert late.is_over
    assert not running.is_over
    running.finish()
    assert (await second.result()).stop_reason == "end_turn"


async def test_s15_cancel_nonexistent_returns_false(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.cancel("nope")


async def test_s16_list_ids(client: Client) -> None:
    made = [await client.new() for _ in range(2)]

    assert sorted(await client.listed()) == sorted(made)


async def test_s17_touch_updates_last_active(daemon: Daemon, client: Client) -> None:
    """On the clock that never goes backwards; watching counts, too."""
    session = await client.new()
    before = daemon.session(session).last_active

    await trio.sleep(0.01)
    await client.attach(session)

    assert daemon.session(session).last_active == before + 0.01


async def test_s18_session_persists_after_transport_disconnect(daemon: Daemon) -> None:
    leaving, watching = await daemon.connect(), await daemon.connect()
    session = await leaving.new()
    leaving.prompt(session)
    performance = await daemon.puppet.next()

    leaving.leave()
    await trio.testing.wait_all_tasks_blocked()

    assert (await watching.status()).connections == 1
    assert (await watching.status()).sessions.live == 1
    assert not performance.was_cancelled
    performance.finish()
    await trio.testing.wait_all_tasks_blocked()
    [turn] = await watching.turns(session)
    assert turn.verdict is not None
    assert turn.verdict.outcome is Outcome.COMPLETED


async def test_s19_kill_session_cancels_inflight_and_removes(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()

    result = await client.kill(session)

    assert result.killed
    assert performance.was_cancelled
    assert (await client.status()).sessions.live == 0


async def test_s20_kill_session_idle_session_removed(client: Client) -> None:
    session = await client.new()

    result = await client.kill(session)

    assert result.killed
    assert result.turns == []
    assert (await client.status()).sessions.live == 0


async def test_s21_kill_session_missing_returns_false(client: Client) -> None:
    assert not (await client.kill("ghost")).killed


async def test_s22_kill_session_cause_is_admin_kill(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    prompt = client.prompt(session)
    await daemon.puppet.next()

    await client.kill(session)

    assert (await prompt.verdict()).cause is Cause.ADMIN_KILL
    [turn] = await client.turns(session)
    assert turn.verdict is not None
    assert turn.verdict.cause is Cause.ADMIN_KILL


# ---- beside S1 to S22: what they leave out


async def test_ids_are_made_here_and_never_twice(client: Client) -> None:
    """A session cannot be inserted over one that exists: nobody chooses an id."""
    made = {await client.new(sessionId="mine") for _ in range(20)}

    assert len(made) == 20
    assert "mine" not in made


async def test_three_answers_about_an_owner(daemon: Daemon) -> None:
    """Unknown, somebody else's, and mine differ where they are told at all."""
    mine, other = await daemon.connect(), await daemon.connect()
    session = await mine.new()

    [row] = (await other.live()).sessions
    assert row.owner == mine.tui != other.tui
    with pytest.raises(NotFound):
        await other.attach("ghost")
    assert (await other.attach(session)).attached == 2


async def test_sessions_are_counted_by_agent(daemon: Daemon, client: Client) -> None:
    first, _ = await client.new(), await client.new(agent="puppet")
    assert (await client.status()).sessions.by_agent == {"puppet": 2}

    await client.kill(first)

    assert (await client.status()).sessions.by_agent == {"puppet": 1}


async def test_overrides_can_be_set_while_a_turn_runs(daemon: Daemon, client: Client) -> None:
    session = await client.new(overrides={"model": "before"})
    client.prompt(session)
    performance = await daemon.puppet.next()

    result = await client.configure(session, model="after")

    assert result.applies == "next_turn"
    assert performance.stage.overrides.model == "before"
    performance.finish()
    client.prompt(session)
    assert (await daemon.puppet.next()).stage.overrides.model == "after"


async def test_a_patch_with_null_clears(client: Client) -> None:
    session = await client.new(overrides={"model": "m", "temperature": 1})

    result = await client.configure(session, model=None)

    assert result.overrides.model is None
    assert result.overrides.temperature == 1.0
    assert OverridesPatch().model is not None, "absent is not null"


async def test_reading_past_the_end_of_a_log_gives_nothing(client: Client) -> None:
    session = await client.new()

    assert await client.entries(session, after=1000) == []


async def test_the_list_shows_what_a_session_is_doing(daemon: Daemon, client: Client) -> None:
    """Behaviour 35: state, running turn, queue, open questions and who is attached."""
    session = await client.new(overrides={"model": "m"})
    client.prompt(session, "one")
    client.prompt(session, "two")
    performance = await daemon.puppet.next()
    performance.begin(lambda stage: stage.ask("may I?"))
    await client.question()

    [row] = (await client.live()).sessions

    assert row.state is State.REQUIRES_ACTION
    assert (row.generation, row.queued, row.pending_permissions) == (2, 1, 1)
    assert (row.owner, row.attached, row.model) == (client.tui, 1, "m")
    assert row.started_at is not None

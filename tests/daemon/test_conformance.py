"""What no daemon may get wrong about its sessions (TX-10 to TX-14), on each kind of store.

Where time matters the clock is simulated and the store in memory; where the store does, the loop
is a real one and the daemon is stopped and started again on what it left.
"""

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.app import App, open_core
from moorage_daemon.store.model import Entry, Kind
from moorage_protocol.errors import RpcError
from moorage_protocol.moorage import Cause, Outcome, Scope
from tests.daemon.grants.test_delegation import Tree
from tests.daemon.harness import KEY, Daemon, now, open_daemon, simulated, some_settings, stop
from tests.daemon.interleavings import check_all_ended, check_log
from tests.daemon.puppet import Cut, Lever, Puppet
from tests.daemon.store.backends import BACKENDS, Backend
from tests.daemon.store.samples import all_entries
from tests.daemon.twin import Client, memory_pair


simulated_clock = pytest.mark.trio(run=simulated)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return Backend(request.param, tmp_path)


@dataclass(eq=False)
class Running:
    """A daemon on a real store, its agent, and one client."""

    app: App
    puppet: Puppet
    client: Client

    async def log(self, session: str) -> list[Entry]:
        return await all_entries(self.app.desk.sessions.committer.store, session)


@asynccontextmanager
async def running_on(backend: Backend) -> AsyncGenerator[Running]:
    puppet = Puppet()
    settings = some_settings(grace_seconds=0.2)
    core = open_core(settings, backend.open(), KEY, {"puppet": puppet}, abandon=puppet.let_go)
    async with core as app, trio.open_nursery() as nursery:
        transport, wire = memory_pair()
        client = Client(wire)
        nursery.start_soon(app.serve, transport)
        nursery.start_soon(client.run)
        await client.initialize({})
        try:
            yield Running(app, puppet, client)
        finally:
            await stop(app)
        nursery.cancel_scope.cancel()


# ---- TX-10


@simulated_clock
async def test_tx10_a_clock_that_is_set_changes_no_deadline() -> None:
    async with open_daemon(turn_timeout_seconds=3600, permission_timeout_seconds=600) as daemon:
        client = await daemon.connect()
        session, asking = await client.new(), await client.new()
        reply = client.prompt(session)
        await daemon.puppet.next()
        client.prompt(asking)
        performance = await daemon.puppet.next()
        performance.begin(Lever(asks=True).call())
        started = trio.current_time()
        for hours in (-5, 5):
            daemon.sessions.committer.now = partial(_wrong_by, hours)
            await trio.sleep(200)
            assert (await client.attach(asking)).pending_permissions, "it still waits"
        await trio.sleep(201)
        assert not (await client.attach(asking)).pending_permissions, "600 seconds are over"
        with trio.fail_after(3600):
            await reply.arrived.wait()

        assert trio.current_time() - started == pytest.approx(3600)
        verdict = await reply.verdict()
        assert (verdict.outcome, verdict.cause) == (Outcome.CANCELLED, Cause.TURN_TIMEOUT)


def _wrong_by(hours: float) -> float:
    return now() + 3600 * hours


# ---- TX-11


def test_tx11_no_tree_of_sessions_calls_more_often_than_its_root_may() -> None:
    reached = 0
    for seed in range(10_000, 10_060):
        tree = Tree(seed)
        for _ in range(40):
            tree.step()
        tree.check()
        reached += tree.ran == tree.limit

    assert reached > 0, "the limit is met, not only avoided"


# ---- TX-12


@pytest.mark.parametrize("seed", range(3))
async def test_tx12_every_turn_has_one_verdict_whatever_ends_it(
    backend: Backend, seed: int
) -> None:
    """Finish, fail, cancel, kill, close, supersede, timeout and shutdown, in any order."""
    chance = random.Random(seed)
    async with running_on(backend) as daemon:
        client = daemon.client
        sessions = [await client.new() for _ in range(3)]
        for _ in range(60):
            session = chance.choice(sessions)
            with suppress(RpcError, Cut):
                await _something(chance, daemon, session)
            if chance.random() < 0.5:
                await _caught_up(daemon, session)
        if backend.name == "memory":
            await _check(daemon, sessions)

    if backend.name != "memory":
        async with running_on(backend) as restarted:
            await _check(restarted, sessions)
            assert len(await _causes(restarted, sessions)) > 2


async def _caught_up(daemon: Running, session: str) -> None:
    """Let a disk, however slow, come to what was written, and then all that waited for it."""
    live = daemon.app.desk.sessions.live.get(session)
    if live is not None:
        await live.log.until(live.log.seq)
    await wait_all_tasks_blocked()


async def _something(chance: random.Random, daemon: Running, session: str) -> None:
    client, puppet = daemon.client, daemon.puppet
    act = chance.randrange(12)
    if act < 5:
        client.prompt(session, timeoutSeconds=chance.choice([0.001, 60]))
    elif act == 5:
        client.prompt(session, onBusy="supersede")
    elif act == 6:
        client.start_cancel(session, scope=chance.choice(list(Scope)))
    elif act == 7 and chance.random() < 0.2:
        client.start_kill(session)
    elif act == 8 and chance.random() < 0.5:
        client.start_close(session)
    elif puppet.performances:
        performance = chance.choice(puppet.performances[-3:])
        if chance.random() < 0.3:
            performance.fail(ValueError("told to"))
        elif chance.random() < 0.3:
            performance.begin(Lever(asks=True).call())
        else:
            performance.finish()


async def _causes(daemon: Running, sessions: list[str]) -> set[str]:
    turns = [turn for session in sessions for turn in await daemon.client.turns(session)]
    return {f"{t.verdict.outcome} {t.verdict.cause}" for t in turns if t.verdict is not None}


async def _check(daemon: Running, sessions: list[str]) -> None:
    for session in sessions:
        log = await daemon.log(session)
        check_log(session, log)
        if daemon.app.desk.sessions.live.get(session) is None:
            check_all_ended(session, log)


# ---- TX-13


async def test_tx13_after_a_kill_only_verdicts_are_written(backend: Backend) -> None:
    async with running_on(backend) as daemon:
        client = daemon.client
        session = await client.new()
        for _ in range(3):
            client.prompt(session)
        performance = await daemon.puppet.next()
        await performance.say("before")
        performance.begin(Lever(holds=True).call())
        await wait_all_tasks_blocked()

        killed = await client.kill(session)
        for act in (performance.say("after"), performance.do(Lever().call())):
            with suppress(Cut, trio.TooSlowError):
                await act
        client.prompt(session)
        client.start_cancel(session, scope=Scope.ALL)
        await wait_all_tasks_blocked()

        assert killed.durable
        log = await daemon.log(session)
        [at] = [entry.seq for entry in log if entry.body.startswith(b'{"state":"killed"')]
        behind = [entry.kind for entry in log if entry.seq > at]
        assert behind.count(Kind.VERDICT) == 3
        ends = {Kind.VERDICT, Kind.ANSWER, Kind.RESULT, Kind.TOOL}
        assert set(behind) <= ends, "what was open is told to have ended, and nothing begins"

    if backend.name != "memory":
        async with running_on(backend) as restarted:
            with pytest.raises(RpcError):
                await restarted.client.prompt(session).result()
            assert await restarted.log(session) == log, "not by a restart either"


# ---- TX-14


@simulated_clock
async def test_tx14_a_slow_client_slows_no_turn_and_misses_nothing(daemon: Daemon) -> None:
    fast, slow = await daemon.connect(), await daemon.connect()
    session = await fast.new()
    await slow.attach(session)
    slow.stop_reading()
    reply = fast.prompt(session)
    performance = await daemon.puppet.next()
    started = trio.current_time()

    for number in range(2000):
        await performance.say(f"{number} " * 50)
    performance.finish()
    await reply.result()

    assert trio.current_time() == started, "nobody waited for it"
    behind = len(slow.seqs(session))
    slow.read_on()
    await slow.until(lambda: slow.seqs(session)[-1:] == fast.seqs(session)[-1:])
    assert behind < len(slow.seqs(session))
    assert slow.seqs(session) == list(range(2, slow.seqs(session)[-1] + 1))
    assert slow.text(session) == fast.text(session)

"""Daemons and clients that come and go, as processes: what was told stays told."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

from moorage_protocol.moorage import CancelOutcome, Cause, Outcome, State
from moorage_protocol.rendezvous import read_daemon
from tests.daemon.twin import Client, Json
from tests.e2e.daemons import PATIENCE, DaemonProcess, command, environment, running
from tests.e2e.wires import connect


CHUNKS = 150
STREAM = f"/stream {CHUNKS} 0.004"  # 0.6 seconds
WHOLE = "".join(f"chunk {number}\n" for number in range(1, CHUNKS + 1))
ENDLESS = "/stream 1000000 0.01"


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Where no daemon has been; with a short name, as a socket's path has little room."""
    with TemporaryDirectory(prefix="moorage-") as path:
        yield Path(path) / "state"


@pytest.fixture
def daemon(state_dir: Path) -> Iterator[DaemonProcess]:
    with running(state_dir) as process:
        yield process


async def streaming(client: Client, session: str) -> None:
    """Wait until some of the answer has come."""
    await client.until(lambda: "chunk 10\n" in client.text(session))


# ---- clients come and go


async def test_client_that_vanished_sees_all_it_missed_when_it_is_back(
    daemon: DaemonProcess,
) -> None:
    async with connect(daemon.unix) as before:
        session = await before.new()
        before.prompt(session, STREAM)
        await streaming(before, session)
    seen = before.seqs(session)
    hello = {"tuiId": before.tui, "tuiSecret": before.secret}

    async with connect(daemon.unix, hello=hello) as after:
        snapshot = await after.attach(session, afterSeq=seen[-1])
        await after.until(lambda: bool(after.verdicts(session)))

        assert snapshot.state is State.RUNNING
        assert before.text(session) + after.text(session) == WHOLE
        total = (await after.entries(session))[-1]["seq"]
        assert [1, *seen, *after.seqs(session)] == list(range(1, total + 1))
        assert after.verdicts(session)[1]["outcome"] == Outcome.COMPLETED
        assert (await after.live()).sessions[0].owner == before.tui


async def test_client_without_moorage_sees_all_of_it_by_loading(daemon: DaemonProcess) -> None:
    async with connect(daemon.unix, plain=True) as before:
        session = await before.new()
        before.prompt(session, STREAM)
        await streaming(before, session)

    async with connect(daemon.unix, plain=True) as after:
        await after.load(session)
        await after.until(lambda: after.text(session) == WHOLE)

        seqs = after.seqs(session)
        assert seqs == sorted(set(seqs))


async def test_all_clients_of_a_session_see_the_same_in_the_same_order(
    daemon: DaemonProcess,
) -> None:
    async with connect(daemon.unix) as one, connect(daemon.unix) as two:
        session = await one.new()
        await two.attach(session, afterSeq=0)
        prompts = [client.prompt(session, STREAM) for client in (one, two, one)]

        for prompt in prompts:
            await prompt.result()
        await two.until(lambda: len(two.verdicts(session)) == 3)

        total = (await one.entries(session))[-1]["seq"]
        assert two.seqs(session) == list(range(1, total + 1))
        assert one.seqs(session) == two.seqs(session)[1:]
        assert one.text(session) == two.text(session) == WHOLE * 3


async def test_client_that_comes_in_mid_turn_can_stop_it(daemon: DaemonProcess) -> None:
    async with connect(daemon.unix) as one, connect(daemon.unix) as two:
        session = await one.new()
        prompt = one.prompt(session, ENDLESS)
        await streaming(one, session)

        assert (await two.cancel(session, scope="all")).outcome is CancelOutcome.FIRED

        assert (await prompt.verdict()).cause is Cause.CLIENT_RPC


# ---- the daemon goes as it is asked to


async def test_sigterm_gives_every_turn_its_verdict_and_every_client_the_rest(
    daemon: DaemonProcess, state_dir: Path
) -> None:
    async with connect(daemon.unix) as client, connect(daemon.unix) as watching:
        session = await client.new()
        await watching.attach(session, afterSeq=0)
        prompts = [client.prompt(session, ENDLESS), client.prompt(session, "never begun")]
        await streaming(client, session)

        daemon.signal(signal.SIGTERM)

        for prompt in prompts:
            assert (await prompt.verdict()).cause is Cause.SHUTDOWN
        await client.until(lambda: client.gone)
        await watching.until(lambda: watching.gone)
        assert client.seqs(session) == watching.seqs(session)[1:]
        told = [message for message in watching.messages if "detached" in message.get("method", "")]
        assert [message["params"]["reason"] for message in told] == ["shutdown"]

    assert daemon.ended() == 0
    assert read_daemon(state_dir) is None
    assert not daemon.unix.exists()
    with running(state_dir) as later:
        async with connect(later.unix) as client:
            assert [e["seq"] for e in await client.entries(session)] == watching.seqs(session)
            turns = await client.turns(session)
            assert [turn.verdict.cause for turn in turns if turn.verdict] == [Cause.SHUTDOWN] * 2


async def test_daemon_with_nothing_to_do_goes_at_once(daemon: DaemonProcess) -> None:
    async with connect(daemon.unix) as client:
        daemon.signal(signal.SIGTERM)
        await client.until(lambda: client.gone)

    assert daemon.ended() == 0
    assert daemon.process.stdout is not None
    assert daemon.process.stdout.read() == ""  # the ready line was all
    assert "Traceback" not in daemon.log.read_text()


async def until_logged(daemon: DaemonProcess, words: str) -> None:
    with trio.fail_after(PATIENCE):
        while words not in daemon.log.read_text():  # noqa: ASYNC110 - a process tells nobody
            await trio.sleep(0.01)


async def test_second_sigterm_ends_it_now_and_the_tools_with_it(
    daemon: DaemonProcess, state_dir: Path
) -> None:
    os.mkfifo(state_dir / "pid")
    async with connect(daemon.unix) as client:
        session = await client.new()
        words = f"/run trap '' TERM; echo $$ > {state_dir}/pid; sleep 300; sleep 300"
        client.prompt(session, words)
        question = await client.question()
        client.choose(question, question.options[0])
        pid = int(await trio.to_thread.run_sync((state_dir / "pid").read_text))

        daemon.signal(signal.SIGTERM)
        await until_logged(daemon, "stopping")
        daemon.signal(signal.SIGTERM)

        assert daemon.ended() == 1
        await client.until(lambda: client.gone)
    with trio.fail_after(PATIENCE):
        while _is_alive(pid):  # noqa: ASYNC110 - it is nobody's child here
            await trio.sleep(0.01)
    with running(state_dir) as later:
        async with connect(later.unix) as client:
            [turn] = await client.turns(session)
            assert turn.verdict is not None
            assert turn.verdict.cause in (Cause.SHUTDOWN, Cause.DAEMON_RESTART)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ---- one at a time


async def test_second_daemon_is_refused_and_told_who_is_there(
    daemon: DaemonProcess, state_dir: Path
) -> None:
    second = subprocess.run(
        command(state_dir), capture_output=True, text=True, timeout=PATIENCE, env=environment()
    )

    assert second.returncode == 3
    assert second.stdout == ""
    [line] = second.stderr.splitlines()
    assert f"pid {daemon.ready['pid']}" in line
    async with connect(daemon.unix) as client:
        assert (await client.status()).pid == daemon.ready["pid"]


async def test_daemon_without_websocket_listens_on_its_socket_alone(state_dir: Path) -> None:
    with running(state_dir, "--no-websocket") as daemon:
        assert daemon.ready["websocket"] is None
        async with connect(daemon.unix) as client:
            assert await client.listed() == []


# ---- the daemon goes without being asked


@pytest.mark.parametrize("store", ["sqlite", "file"])
async def test_turns_that_a_kill_cut_have_their_verdict_when_the_daemon_is_back(
    state_dir: Path, store: str
) -> None:
    config = state_dir.with_name("config.toml")
    config.write_text(f'store = "{store}:"\n')
    with running(state_dir, "--config", str(config)) as daemon:
        async with connect(daemon.unix) as client:
            session = await client.new()
            client.prompt(session, ENDLESS)
            client.prompt(session, "never begun")
            await streaming(client, session)
            assert (await client.status()).store.name == store

            daemon.signal(signal.SIGKILL)
            await client.until(lambda: client.gone)
        daemon.ended()
        assert daemon.unix.exists()  # it had no chance to clean up

    with running(state_dir, "--config", str(config)) as later:
        async with connect(later.unix) as back:
            turns = await back.turns(session)
            entries = await back.entries(session)

            verdicts = [turn.verdict for turn in turns if turn.verdict]
            assert [verdict.outcome for verdict in verdicts] == [Outcome.CANCELLED] * 2
            assert [verdict.cause for verdict in verdicts] == [Cause.DAEMON_RESTART] * 2
            assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
            assert set(client.seqs(session)) <= {entry["seq"] for entry in entries}
            assert _said(entries).startswith(client.text(session))
            assert (await back.status()).turns == 0  # nothing runs again by itself

            answer = await back.prompt(session, "and now?").verdict()
            assert answer.generation == 3


def _said(entries: list[Json]) -> str:
    """What the agent said, by the log."""
    updates: list[Json] = [entry["update"] for entry in entries if "update" in entry]
    return "".join(
        update["content"]["text"]
        for update in updates
        if update["sessionUpdate"] == "agent_message_chunk"
    )

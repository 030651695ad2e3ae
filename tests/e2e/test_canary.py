"""The secret of a prompt is in no file of a real daemon, also when that is killed in the middle."""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

from moorage_protocol.moorage import PromptResult
from tests.daemon.canaries import command_lines_with, files_with, is_told
from tests.daemon.transfer.files import exported
from tests.daemon.twin import Client, Json, Reply
from tests.e2e.commands import moorage
from tests.e2e.daemons import running
from tests.e2e.wires import connect


CANARY = "canary:x+0123/\"ABC'DEF\\==@db"
CONTROL = CANARY.replace("canary", "control")
PATIENCE = 20  # seconds for anything here


@pytest.fixture
def folder() -> Iterator[Path]:
    """What a daemon and its operator have on the disk: state, log, settings, and a workspace."""
    with TemporaryDirectory(prefix="moorage-") as path:
        yield Path(path)


def send(client: Client, session: str, *texts: str) -> Reply[PromptResult]:
    """A prompt whose lines are blocks of their own; the canary is marked, the control is not."""
    mark: Json = {"_meta": {"moorage": {"secret": True}}}
    blocks = [{"type": "text", "text": t, **(mark if t == CANARY else {})} for t in texts]
    params: Json = {"sessionId": session, "prompt": blocks}
    return client.start("session/prompt", params, PromptResult)


async def use(client: Client, session: str, secret: str) -> None:
    """Have it said, printed, and kept as an artifact."""
    await send(client, session, "say", secret).result()
    for command in ("cat", "{ yes 'long' | head -c 300000; cat; }"):
        asked = len(client.questions)
        reply = send(client, session, f"/run {command} <<'END'", secret, "END")
        client.choose(await client.question(asked + 1))
        await reply.result()


@pytest.mark.parametrize("store", ["sqlite:", "file:"])
async def test_secret_is_in_no_file_before_and_after_a_kill_and_an_unmarked_one_is(
    folder: Path, store: str
) -> None:
    state, work = folder / "state", folder / "work"
    work.mkdir()
    settings = folder / "config.toml"
    settings.write_text(f'store = "{store}"\n')
    flags = ("--verbose", "--config", str(settings))
    with trio.fail_after(PATIENCE), running(state, *flags) as daemon:
        async with connect(daemon.unix) as client:
            session = await client.new(cwd=str(work))
            await use(client, session, CANARY)
            await use(client, await client.new(cwd=str(work)), CONTROL)
            asked = len(client.questions)
            send(client, session, "/run { cat; echo started; sleep 600; } <<'END'", CANARY, "END")
            send(client, session, "it waits behind that:", CANARY)
            client.choose(await client.question(asked + 1))
            await client.until(lambda: "started" in str(client.messages))
            arguments = command_lines_with(CANARY)
            alive = files_with(CANARY, folder)
            daemon.signal(signal.SIGKILL)
            daemon.ended()
    killed = files_with(CANARY, folder)
    with trio.fail_after(PATIENCE), running(state, *flags) as daemon:
        async with connect(daemon.unix) as again:
            taken_out = await exported(again, session)
            verdicts = [record.verdict for record in await again.turns(session)]
        assert daemon.stop() == 0

    causes = [verdict.cause for verdict in verdicts if verdict is not None]
    assert causes[-2:] == ["daemon_restart", "daemon_restart"]
    assert (arguments, alive, killed, files_with(CANARY, folder)) == ([], [], [], [])
    assert not is_told(CANARY, taken_out)
    assert b"[secret]" in taken_out
    assert files_with(CONTROL, folder), "the search finds what is there"


@pytest.mark.skipif(sys.platform != "linux", reason="limits are read in /proc")
def test_daemon_that_crashes_leaves_no_picture_of_its_memory(folder: Path) -> None:
    ours = resource.getrlimit(resource.RLIMIT_CORE)
    if ours[1] == 0:
        pytest.skip("here nothing leaves one")
    resource.setrlimit(resource.RLIMIT_CORE, (ours[1], ours[1]))
    try:
        with running(folder / "state") as daemon:
            limits = {pid: core_limit(pid) for pid in (os.getpid(), daemon.process.pid)}
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, ours)

    assert limits == {os.getpid(): limits[os.getpid()], daemon.process.pid: "0"}
    assert limits[os.getpid()] != "0"


def core_limit(pid: int) -> str:
    """The limit in force, in bytes, or that there is none."""
    [line] = [
        line
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
        if line.startswith("Max core file size")
    ]
    return line.split()[4]


async def test_secret_of_the_command_line_reaches_a_tool_and_no_file(folder: Path) -> None:
    work, key = folder / "work", folder / "key"
    work.mkdir()
    key.touch(0o600)
    key.write_text(f"{CANARY}\n")

    with running(folder / "state", "--verbose"):

        def run(*words: str) -> str:
            ended = moorage(*words, state_dir=folder / "state", cwd=work)
            assert ended.code == os.EX_OK, ended
            return ended.out

        def all_of_it() -> list[str]:
            run("new")
            said = run("prompt", "--secret-file", str(key), "the key is")
            return [said, run("log"), run("export")]

        shown = await trio.to_thread.run_sync(all_of_it)

    assert shown[0] == "the key is\n[secret]\n"
    assert not is_told(CANARY, "".join(shown).encode())
    assert files_with(CANARY, folder) == [str(key)]

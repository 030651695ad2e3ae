"""`mooraged --stdio`: a daemon for one editor, whose standard output is the protocol's alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moorage_protocol.rendezvous import is_alive, read_daemon
from tests.e2e.daemons import PATIENCE, environment, running
from tests.e2e.streams import Alone, Headers, Json, Lines, Stream, over_stdio, over_unix


ENDLESS = "/stream 1000000 0.01"


def new(stream: Stream, cwd: Path) -> str:
    answer = stream.call("session/new", cwd=str(cwd), mcpServers=[])
    session: str = answer["result"]["sessionId"]
    return session


def prompt(stream: Stream, session: str, text: str, request_id: int = 1) -> None:
    """Ask for a turn, and wait for no answer."""
    params = {"sessionId": session, "prompt": [{"type": "text", "text": text}]}
    message = {"jsonrpc": "2.0", "id": request_id, "method": "session/prompt", "params": params}
    stream.say(json.dumps(message).encode())


def until(stream: Stream, word: str) -> Json:
    """The next message with that word in it."""
    while (message := stream.hear()) is not None:
        if word in json.dumps(message):
            return message
    raise AssertionError("closed")


def verdicts(messages: list[Json]) -> list[Json]:
    told = [message["params"] for message in messages if "params" in message]
    return [params for params in told if params.get("kind") == "verdict"]


# ---- how it ends


@pytest.mark.parametrize("framing", [Lines(), Headers()], ids=["lines", "headers"])
@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "state-dir"])
def test_end_of_input_gives_every_turn_its_verdict_and_tells_it(
    tmp_path: Path, framing: Lines | Headers, kept: bool
) -> None:
    flags = ("--state-dir", str(tmp_path / "state")) if kept else ()
    with over_stdio(framing, *flags) as alone:
        alone.stream.introduce()
        session = new(alone.stream, tmp_path)
        prompt(alone.stream, session, ENDLESS, 1)
        prompt(alone.stream, session, "never begun", 2)
        until(alone.stream, "chunk 3")

        alone.stream.end()

        rest = alone.stream.rest()
        assert [verdict["cause"] for verdict in verdicts(rest)] == ["shutdown"] * 2
        answers = {message["id"]: message for message in rest if "id" in message}
        assert [answers[n]["result"]["stopReason"] for n in (1, 2)] == ["cancelled"] * 2
        assert [answers[n]["result"]["_meta"]["moorage"]["cause"] for n in (1, 2)] == [
            "shutdown"
        ] * 2
        assert alone.left() == (0, "")
    if kept:
        with over_stdio(Lines(), *flags) as later:
            later.stream.introduce()
            turns = later.stream.call("_moorage/session/turns", sessionId=session)["result"]
            assert [turn["verdict"]["cause"] for turn in turns["turns"]] == ["shutdown"] * 2


def test_what_a_script_pipes_in_is_answered_to_its_end(tmp_path: Path) -> None:
    said: list[Json] = [
        {"id": 1, "method": "initialize", "params": {"protocolVersion": 1}},
        {"id": 2, "method": "session/new", "params": {"cwd": str(tmp_path), "mcpServers": []}},
        {"id": 3, "method": "session/list", "params": {}},
    ]
    lines = "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in said)

    done = subprocess.run(
        [sys.executable, "-m", "moorage_daemon", "--stdio"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )

    heard = [json.loads(line) for line in done.stdout.splitlines()]
    assert {message["id"] for message in heard if "result" in message} == {1, 2, 3}
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_gives_every_turn_its_verdict_and_tells_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    with over_stdio(Lines()) as alone:
        alone.stream.introduce()
        prompt(alone.stream, new(alone.stream, tmp_path), ENDLESS)
        until(alone.stream, "chunk 3")

        alone.process.send_signal(number)

        rest = alone.stream.rest()
        assert [verdict["cause"] for verdict in verdicts(rest)] == ["shutdown"]
        assert [message["id"] for message in rest if "result" in message] == [1]
        code, errors = alone.left()
        assert code == 0
        assert "Traceback" not in errors


def stubborn(alone: Alone, folder: Path) -> None:
    """A turn at work in a command that takes its time to end."""
    os.mkfifo(folder / "begun")
    alone.stream.introduce()
    words = f"/run trap '' TERM; echo > {folder}/begun; sleep 300; sleep 300"
    prompt(alone.stream, new(alone.stream, folder), words)
    question = until(alone.stream, "session/request_permission")
    result = {"outcome": {"outcome": "selected", "optionId": "allow"}}
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": result}
    alone.stream.say(json.dumps(answer).encode())
    (folder / "begun").read_bytes()


def test_second_signal_ends_it_now(tmp_path: Path) -> None:
    with over_stdio(Lines()) as alone:
        stubborn(alone, tmp_path)
        assert alone.process.stderr is not None

        alone.process.send_signal(signal.SIGTERM)
        assert "stopping" in alone.process.stderr.readline()
        alone.process.send_signal(signal.SIGTERM)

        assert alone.left()[0] == 1


def test_signal_behind_the_end_of_input_cuts_nothing_short(tmp_path: Path) -> None:
    with over_stdio(Lines()) as alone:
        stubborn(alone, tmp_path)

        alone.stream.end()
        alone.process.send_signal(signal.SIGTERM)  # as editors do that lose patience

        assert [verdict["cause"] for verdict in verdicts(alone.stream.rest())] == ["shutdown"]
        assert alone.left()[0] == 0


def test_editor_that_does_not_read_does_not_keep_it(tmp_path: Path) -> None:
    with over_stdio(Lines()) as alone:
        alone.stream.introduce()
        prompt(alone.stream, new(alone.stream, tmp_path), "/stream 1000000")
        until(alone.stream, "chunk 3")

        alone.stream.end()

        assert alone.process.wait(PATIENCE) == 0


def test_editor_that_goes_in_mid_turn_ends_it(tmp_path: Path) -> None:
    with over_stdio(Lines()) as alone:
        alone.stream.introduce()
        prompt(alone.stream, new(alone.stream, tmp_path), ENDLESS)
        until(alone.stream, "chunk 3")

        alone.stream.socket.close()

        code, errors = alone.left()
        assert code == 0
        assert "Traceback" not in errors


# ---- what it leaves behind, and who is beside it


def test_without_state_dir_it_keeps_nothing_and_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(home))
    with over_stdio(Lines()) as one, over_stdio(Lines()) as two:
        for alone in (one, two):
            alone.stream.introduce()
            session = new(alone.stream, tmp_path)
            prompt(alone.stream, session, "hello")
            answer = until(alone.stream, '"result"')["result"]
            assert answer["stopReason"] == "end_turn"
            alone.stream.end()
            alone.stream.rest()
            assert alone.left() == (0, "")

    assert list(home.rglob("*")) == []


def test_with_state_dir_it_is_the_one_daemon_there(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with over_stdio(Lines(), "--state-dir", str(state)) as first:
        first.stream.introduce()
        assert is_alive(state)
        with over_stdio(Lines(), "--state-dir", str(state)) as second:
            assert second.stream.rest() == []
            code, errors = second.left()
            assert code == 3
            [line] = errors.splitlines()
            assert f"pid {first.process.pid}" in line
        session = new(first.stream, tmp_path)
        first.stream.end()
        first.stream.rest()
        assert first.left() == (0, "")

    with running(state) as daemon, over_unix(daemon.unix, Lines()) as stream:
        stream.introduce()
        rows = stream.call("session/list")["result"]["sessions"]
        assert [row["sessionId"] for row in rows] == [session]


def test_in_a_state_dir_others_look_on_and_kill_and_are_told_of_the_end(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with over_stdio(Lines(), "--state-dir", str(state)) as alone:
        alone.stream.introduce()
        daemon = read_daemon(state)
        assert daemon is not None
        assert (daemon.pid, daemon.websocket) == (alone.process.pid, None)
        killed, left = new(alone.stream, tmp_path), new(alone.stream, tmp_path)
        prompt(alone.stream, killed, ENDLESS)
        until(alone.stream, "chunk 3")
        with over_unix(Path(daemon.unix), Lines()) as other:
            other.introduce()
            other.call("_moorage/session/attach", sessionId=left)

            assert other.call("session/kill", sessionId=killed)["result"]["durable"]
            assert until(alone.stream, '"result"')["result"]["stopReason"] == "cancelled"
            alone.stream.end()

            assert until(other, "detached")["params"]["reason"] == "shutdown"
            assert other.rest() == []
        alone.stream.rest()
        assert alone.left()[0] == 0
    assert read_daemon(state) is None
    assert not Path(daemon.unix).exists()


def test_in_a_state_dir_it_opens_a_port_only_if_it_is_told_to(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with over_stdio(Lines(), "--state-dir", str(state), "--websocket", "127.0.0.1:0") as alone:
        alone.stream.introduce()
        daemon = read_daemon(state)
        assert daemon is not None
        assert daemon.websocket is not None
        alone.stream.end()
        assert alone.left() == (0, "")


# ---- what is on its standard output


NOISY = """
import logging, os, sys, warnings
from moorage_daemon import app, program

serve = app.App.serve

async def noisy(self, transport, *rest):
    print("a library's chatter")
    sys.stdout.flush()
    os.write(1, b"raw chatter\\n")
    os.system("echo chatter of a child")
    warnings.warn("something is old")
    logging.getLogger("some.library").warning("something is odd")
    if sys.argv[1] == "crash":
        raise RuntimeError("as planned")
    await serve(self, transport, *rest)

app.App.serve = noisy
program.main(["--stdio", "--verbose"])
"""
CHATTER = (
    "a library's chatter",
    "raw chatter",
    "chatter of a child",
    "something is old",
    "something is odd",
)


def test_whatever_writes_to_standard_output_is_not_heard_there() -> None:
    with over_stdio(Lines(), "serve", program=("-Walways", "-c", NOISY)) as alone:
        assert alone.stream.introduce()["protocolVersion"] == 1
        alone.stream.end()

        assert alone.stream.rest() == []
        code, errors = alone.left()
        assert code == 0
        assert [word for word in CHATTER if word not in errors] == []


def test_crash_says_nothing_on_standard_output() -> None:
    with over_stdio(Lines(), "crash", program=("-Walways", "-c", NOISY)) as alone:
        assert alone.stream.rest() == []

        code, errors = alone.left()
        assert code == 1
        assert "RuntimeError: as planned" in errors
        assert [word for word in CHATTER if word not in errors] == []


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--config", "/nowhere/at.all"), 2),
        (("--unheard-of",), 2),
        (("--state-dir", "/proc/self/nowhere"), 1),
    ],
)
def test_start_that_fails_says_nothing_on_standard_output(
    flags: tuple[str, ...], code: int
) -> None:
    with over_stdio(Lines(), *flags) as alone:
        assert alone.stream.rest() == []
        assert alone.left()[0] == code


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_descriptor_that_was_closed_is_nobody_elses(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    shell = " ".join(f"{number}>&-" for number in closed)
    state = tmp_path / "state"

    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "moorage_daemon",
         "--stdio", "--state-dir", str(state)],
        input='{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}\n',
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )  # fmt: skip

    assert done.returncode == 0
    assert bool(done.stdout) == (0 not in closed and 1 not in closed)
    assert done.stderr == ""
    for file in state.iterdir():
        assert b"jsonrpc" not in file.read_bytes()

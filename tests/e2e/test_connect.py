"""The command against a daemon that is named by its address."""

import json
import os
from pathlib import Path

import pytest

from moorage_clients.cli.exits import Exit
from tests.e2e.commands import Ended, moorage
from tests.e2e.daemons import DaemonProcess, environment


@pytest.fixture
def token_file(daemon: DaemonProcess, tmp_path: Path) -> Path:
    """A copy of the daemon's token, as a person has it who came here over ssh."""
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(daemon.token + "\n")
    return path


def elsewhere(
    daemon: DaemonProcess, token_file: Path, *words: str, **settings: dict[str, str]
) -> Ended:
    """Run the command with a state directory of its own, in which no daemon runs."""
    return moorage(
        "--connect", daemon.websocket, "--token-file", str(token_file), *words,
        state_dir=token_file.parent / "own", cwd=token_file.parent, **settings,
    )  # fmt: skip


def test_session_lives_its_whole_life_over_a_websocket(
    daemon: DaemonProcess, token_file: Path
) -> None:
    def run(*words: str) -> Ended:
        ended = elsewhere(daemon, token_file, *words)
        assert ended.code == Exit.OK, ended
        return ended

    session = run("new").out.strip()
    second = json.loads(run("new", "--json").out)["sessionId"]

    assert run("prompt", session[:10], "hello there").out == "hello there\n"
    rows = {row["sessionId"]: row for row in json.loads(run("ls", "--json").out)["sessions"]}
    assert rows[session]["owner"] == rows[second]["owner"]
    assert "hello there" in run("log", session, "--kind", "message").out
    assert "hello there" in run("attach", session, "--from", "1").out
    assert "model=m" in run("configure", session, "model=m").out
    assert "mooraged" in run("status").out
    assert "nothing runs" in run("cancel", session, "--scope", "all").out
    assert run("kill", session).out == f"{session}: killed\n"
    own = token_file.parent / "own"
    assert [path.name for path in own.iterdir()] == ["tui"]  # who we are, and no daemon
    assert own.stat().st_mode & 0o077 == 0


def test_terminals_environment_does_not_go_to_another_machine(
    daemon: DaemonProcess, token_file: Path
) -> None:
    cwd = token_file.parent
    shell = {**environment(), "VIRTUAL_ENV": "/mine/canary", "PATH": os.environ["PATH"]}
    assert elsewhere(daemon, token_file, "new", "--cwd", str(cwd), env=shell).code == Exit.OK

    elsewhere(daemon, token_file, "prompt", "--allow", "/run env > seen.txt", env=shell)

    assert "canary" not in (cwd / "seen.txt").read_text()


def test_wrong_token_is_refused_and_repeated_nowhere(
    daemon: DaemonProcess, token_file: Path
) -> None:
    token_file.write_text("canary" * 8)

    found = elsewhere(daemon, token_file, "ls")

    assert found.code == Exit.NO_DAEMON
    assert "does not accept the token" in found.err
    assert "canary" not in found.err + found.out + daemon.log.read_text()


def test_nobody_at_the_address_says_what_to_look_at(tmp_path: Path, token_file: Path) -> None:
    found = moorage(
        "ls", "--connect", "ws://127.0.0.1:1/acp", "--token-file", str(token_file),
        state_dir=tmp_path / "own", cwd=tmp_path,
    )  # fmt: skip

    assert found.code == Exit.NO_DAEMON
    assert "does the address lead to it?" in found.err

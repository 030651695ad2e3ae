"""Pausing from end to end: the command, a real daemon, and what is left after it was killed."""

import json
from pathlib import Path

import pytest

from moorage_clients.cli.exits import Exit
from tests.e2e.commands import PATIENCE, Shell
from tests.e2e.daemons import running


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    return path


def state(shell: Shell) -> str:
    """What `ls` says of the one session."""
    return shell.ok("ls").splitlines()[1].split("  ")[2].strip()


def test_prompt_waits_for_a_paused_session_and_says_so(tmp_path: Path, workspace: Path) -> None:
    with running(tmp_path / "state") as daemon:
        shell = Shell(daemon, workspace)
        session = shell.ok("new", "--tools", "Read")

        assert shell.ok("pause") == f"{session}: paused"
        assert json.loads(shell.ok("pause", session[:8], "--json")) == {
            "sessionId": session,
            "state": "paused",
        }
        assert state(shell) == "paused"
        with shell.start("attach", session) as attached:
            assert attached.stderr is not None
            assert attached.communicate(timeout=PATIENCE)[1].splitlines()[-1] == (
                f"The session is paused, prompts wait: moorage resume {session}"
            )
        assert "active, paused with its session" in shell.ok("grant", "show", session)
        with shell.start("prompt", session, "good morning") as waiting:
            assert waiting.stderr is not None
            assert "waits: the session is paused" in waiting.stderr.readline()
            assert shell.ok("resume", session) == f"{session}: running"
            out, _ = waiting.communicate(timeout=PATIENCE)

        assert (waiting.returncode, out) == (Exit.OK, "good morning\n")
        assert state(shell) == "idle"
        assert shell("pause", "zzzz").code == Exit.NO_SESSION
        shell.ok("kill", session)
        assert shell("pause", session).code == Exit.KILLED


def test_paused_session_is_paused_after_its_daemon_was_killed(
    tmp_path: Path, workspace: Path
) -> None:
    with running(tmp_path / "state") as daemon:
        shell = Shell(daemon, workspace)
        session = shell.ok("new")
        shell.ok("pause", session)
        daemon.process.kill()
        daemon.process.wait()

        assert state(shell) == "paused"  # of the daemon that the command has started
        assert shell.ok("resume", session) == f"{session}: idle"
        assert shell.ok("prompt", session, "hello") == "hello"

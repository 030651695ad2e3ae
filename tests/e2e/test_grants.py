"""Grants from end to end: the command, a real daemon, and real tools."""

import json
from pathlib import Path

import pytest

from moorage_clients.cli.exits import Exit
from tests.e2e.commands import Shell
from tests.e2e.daemons import DaemonProcess, running
from tests.e2e.gateways import over_unix


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    (path / "a.txt").write_text("what is in a\n")
    return path


@pytest.fixture
def shell(daemon: DaemonProcess, workspace: Path) -> Shell:
    return Shell(daemon, workspace)


def test_session_with_limits_lives_within_them(shell: Shell) -> None:
    session = shell.ok("new", "--tools", "Read,Bash(echo:*)", "--calls", "3", "--minutes", "5")

    assert "what is in a" in shell.ok("prompt", session, "/read a.txt")
    assert "hello" in shell.ok("prompt", "--allow", session, "/run echo hello")
    refused = shell.ok("prompt", "--allow", session, "/run ls")
    assert refused == "tool not authorized in session"
    shell.ok("prompt", session, "/read a.txt")
    spent = shell("prompt", session, "/read a.txt", "--json")

    assert spent.code == Exit.CANCELLED
    result = json.loads(spent.out.splitlines()[-1])
    assert result["stopReason"] == "max_turn_requests"
    assert (result["verdict"]["cause"], result["verdict"]["stop"]) == ("budget", "calls")
    shown = json.loads(shell.ok("grant", "show", session, "--json"))
    assert shown["used"]["calls"] == 3
    assert shown["used"]["refused"] == 2
    assert shown["tools"] == ["Read", "Bash(echo:*)"]


def test_grant_is_listed_raised_and_closed(shell: Shell) -> None:
    session = shell.ok("new", "--any-tool", "--calls", "1", "--usd", "2")
    shell.ok("prompt", session, "/read a.txt")
    grant = json.loads(shell.ok("grant", "show", session, "--json"))["grantId"]

    assert "1/1" in shell.ok("grant", "list")
    raised = shell.ok("grant", "raise", grant[:8], "--calls", "2")
    assert raised.startswith(f"{grant}: revision 2, calls 1/2, tokens 0/-, usd 0.00/2.00, time ")
    shell.ok("prompt", session, "/read a.txt")
    closed = shell.ok("grant", "close", grant)
    assert closed.startswith(f"{grant}: closed after 2 calls (100%)")
    assert "session already closed" in shell("prompt", session, "/read a.txt").err
    assert "state        closed" in shell.ok("grant", "show", grant)
    assert shell.ok("grant", "gc") == "0 removed"  # it stays readable
    assert shell("grant", "show", "zzzz").code == Exit.NO_SESSION


def test_limits_survive_a_daemon_that_is_killed(tmp_path: Path, workspace: Path) -> None:
    with running(tmp_path / "state") as daemon:
        shell = Shell(daemon, workspace)
        session = shell.ok("new", "--tools", "Read", "--calls", "2")
        shell.ok("prompt", session, "/read a.txt")
        daemon.process.kill()
        daemon.process.wait()

        shell.ok("prompt", session, "/read a.txt")

        assert shell("prompt", session, "/read a.txt").code == Exit.CANCELLED
        assert shell.ok("prompt", session, "hello") == "hello"  # that is no tool call


def test_unknown_field_of_a_budget_is_refused_on_the_socket(daemon: DaemonProcess) -> None:
    with over_unix(daemon) as line:
        told = line.ask("_moorage/grant/create", agent="a", tools=[], budget={"tokes": 100})

    assert told.error["code"] == -32602
    assert "tokes" in told.error["message"]

"""Grants from end to end: the command, a real daemon, real tools, and the bytes on the socket."""

import json
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage_clients.cli.exits import Exit
from tests.e2e.commands import Shell
from tests.e2e.daemons import DaemonProcess, running


Json = dict[str, Any]


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
    assert shell.ok("grant", "raise", grant[:8], "--calls", "2") == f"{grant}: revision 2"
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


# ---- the bytes


class Line:
    """A connection of a gateway that only knows JSON."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")
        self._sent = 0
        self.ask("initialize", protocolVersion=1)

    def ask(self, method: str, **params: Any) -> Json:
        self._sent += 1
        message = {"jsonrpc": "2.0", "id": self._sent, "method": method, "params": params}
        self._file.write(json.dumps(message).encode() + b"\n")
        self._file.flush()
        answer: Json = json.loads(self._file.readline())
        assert answer["id"] == self._sent
        return answer

    def grant(self, **wish: Any) -> str:
        usual: Json = {"agent": "reader", "tools": ["read_file"]}
        found = self.ask("_moorage/grant/create", **(usual | wish))
        return str(found["result"]["grantId"])


@contextmanager
def line(daemon: DaemonProcess) -> Generator[Line]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(daemon.state_dir / "daemon.sock"))
        yield Line(connection)


def test_te04_refusals_on_the_socket_are_a_code_a_sentence_and_two_words(
    daemon: DaemonProcess,
) -> None:
    with line(daemon) as gateway:
        fine, spent = gateway.grant(), gateway.grant(budget={"calls": 0})
        slow = gateway.grant(rate={"calls": 0, "perSeconds": 60})
        closed = gateway.grant()
        gateway.ask("_moorage/grant/close", grantId=closed)
        told: dict[str, Json] = {}
        for name, grant, agent, tool in (
            ("missing", "a" * 26, "reader", "read_file"),
            ("foreign", fine, "attacker-77", "read_file"),
            ("closed", closed, "reader", "read_file"),
            ("budget", spent, "reader", "read_file"),
            ("tool", fine, "reader", "sekret_tool"),
            ("rate", slow, "reader", "read_file"),
        ):
            answer = gateway.ask("_moorage/grant/use", grantId=grant, agent=agent, tool=tool)
            assert set(answer) == {"jsonrpc", "id", "error"}
            told[name] = answer["error"]
        made = [gateway.ask("_moorage/grant/create", agent="many", tools=[]) for _ in range(11)]
        told["too_many"] = made[-1]["error"]

    for name, error in told.items():
        assert set(error) == {"code", "message", "data"}, name
        assert set(error["data"]) == {"code", "retryable"}, name
        assert error["code"] == -31006
        text = json.dumps(error)
        for marker in (fine, spent, slow, closed, "sekret_tool", "attacker-77", "reader"):
            assert marker not in text
    assert told["missing"] == told["foreign"]
    log = daemon.log.read_text()
    assert "sekret_tool" in log  # the operator is told
    assert "attacker-77" in log


def test_unknown_field_of_a_budget_is_refused_on_the_socket(daemon: DaemonProcess) -> None:
    with line(daemon) as gateway:
        answer = gateway.ask("_moorage/grant/create", agent="a", tools=[], budget={"tokes": 100})

    assert answer["error"]["code"] == -32602
    assert "tokes" in answer["error"]["message"]

"""An editor whose `moorage acp` is told the address of a daemon."""

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.commands import moorage
from tests.e2e.daemons import DaemonProcess, running
from tests.e2e.editors import MOORAGE, Json, Refused, open_editor


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A state directory without a daemon: who the editor is, is kept there."""
    return tmp_path / "own"


@pytest.fixture
def token_file(daemon: DaemonProcess, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(daemon.token)
    return path


def to_address(own: Path, address: str, *words: str) -> Json:
    """How such an editor comes to its agent."""
    command = ["-c", MOORAGE, "acp", "--state-dir", str(own), "--connect", address, *words]
    return {"command": [sys.executable, *command], "env": {}}


@pytest.fixture(params=["websocket", "unix socket"])
def how(request: pytest.FixtureRequest, daemon: DaemonProcess, own: Path, token_file: Path) -> Json:
    if request.param == "websocket":
        return to_address(own, daemon.websocket, "--token-file", str(token_file))
    return to_address(own, f"unix:{daemon.unix}")


def test_editor_prompts_and_is_answered(how: Json, tmp_path: Path, own: Path) -> None:
    with open_editor(how) as editor:
        editor.call("initialize", protocol_version=1)
        session = editor.call("new_session", cwd=str(tmp_path), mcp_servers=[])["sessionId"]
        said = [{"type": "text", "text": "/stream 300"}]
        answer = editor.call("prompt", session_id=session, prompt=said)
        end = editor.leave()

        assert answer["stopReason"] == "end_turn"
        assert editor.text(session) == "".join(f"chunk {n}\n" for n in range(1, 301))
        assert editor.problems() == []
    assert end == {"left": 0, "stderr": ""}
    assert [path.name for path in own.iterdir()] == ["tui"]


def test_editor_stays_while_the_daemon_is_restarted(own: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = f"127.0.0.1:{free.getsockname()[1]}"
    state_dir, token_file = tmp_path / "s", tmp_path / "t"
    with running(state_dir, "--websocket", port) as before:
        token_file.touch(0o600)
        token_file.write_text(before.token)
        how = to_address(own, before.websocket, "--token-file", str(token_file))
        with open_editor(how) as editor:
            editor.call("initialize", protocol_version=1)
            session = editor.call("new_session", cwd=str(tmp_path), mcp_servers=[])["sessionId"]
            assert before.stop() == 0
            with running(state_dir, "--websocket", port):
                said = [{"type": "text", "text": "still there?"}]
                answer = editor.call("prompt", session_id=session, prompt=said)

                assert answer["stopReason"] == "end_turn"
                assert editor.text(session) == "still there?"


@pytest.mark.parametrize("where", ["websocket", "unix socket", "wrong token"])
def test_daemon_that_cannot_be_reached_is_an_answer_that_says_why(
    daemon: DaemonProcess, own: Path, token_file: Path, where: str
) -> None:
    hows: dict[str, Callable[[], Json]] = {
        "websocket": lambda: to_address(
            own, "ws://127.0.0.1:1/acp", "--token-file", str(token_file)
        ),
        "unix socket": lambda: to_address(own, "unix:/nowhere"),
        "wrong token": lambda: to_address(own, daemon.websocket, "--token-file", str(token_file)),
    }
    token_file.write_text("canary" * 8)
    said = {"websocket": "no moorage daemon answers", "unix socket": "/nowhere",
            "wrong token": "does not accept the token"}  # fmt: skip
    with open_editor(hows[where]()) as editor:
        with pytest.raises(Refused, match=said[where]) as refused:
            editor.call("initialize", protocol_version=1)

        assert "canary" not in json.dumps(editor.told)
        assert "canary" not in str(refused.value)
        assert editor.leave() == {"left": 0, "stderr": ""}


def test_token_is_on_no_command_line_and_in_no_environment(
    daemon: DaemonProcess, own: Path, token_file: Path
) -> None:
    how = to_address(own, daemon.websocket, "--token-file", str(token_file))
    with open_editor(how) as editor:
        editor.call("initialize", protocol_version=1)

        assert any(b"moorage_clients.pump" in _read(path / "cmdline") for path in _processes())
        shown = b"".join(_read(path / name) for path in _processes() for name in SHOWN)
        assert daemon.token.encode() not in shown
        editor.leave()


SHOWN = ("cmdline", "environ")


def _processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ended meanwhile, or somebody else's
        return b""


def test_missing_token_file_ends_it_before_it_is_an_agent(own: Path, tmp_path: Path) -> None:
    found = moorage(
        "acp", "--connect", "ws://127.0.0.1:1/acp", "--token-file", "nothing",
        state_dir=own, cwd=tmp_path,
    )  # fmt: skip

    assert found.code == 2
    assert "nothing: No such file" in found.err

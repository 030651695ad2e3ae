"""What is somebody else's is told, to the byte, like what is not there: with a second token."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import two_tokens
from tests.e2e.daemons import DaemonProcess, running
from tests.e2e.gateways import Json, Line, over_websocket


MISSING = "m" * 26
ANY_ID = 7  # of requests whose answers are compared

OF_A_SESSION: dict[str, Json] = {
    "session/load": {"cwd": "/", "mcpServers": []},
    "session/resume": {"cwd": "/", "mcpServers": []},
    "session/prompt": {"prompt": [{"type": "text", "text": "hello"}]},
    "session/cancel": {},
    "session/close": {},
    "session/delete": {},
    "session/status": {},
    "session/set_title": {"title": "mine"},
    "session/archive": {},
    "session/unarchive": {},
    "session/set_mode": {"modeId": "read-only"},
    "session/set_config_option": {"configId": "mode", "value": "read-only"},
    "session/kill": {},
    "session/configure": {"overrides": {}},
    "_moorage/session/attach": {},
    "_moorage/session/detach": {},
    "_moorage/session/entries": {"after": 0},
    "_moorage/session/turns": {},
    "_moorage/session/usage": {},
    "_moorage/session/traces": {},
    "_moorage/session/artifacts": {},
    "_moorage/session/reports": {},
    "_moorage/session/export": {},
    "_moorage/session/config/get": {},
    "_moorage/session/config/set": {"config": {}},
    "_moorage/session/withdraw": {"generation": 1},
    "_moorage/session/pause": {},
    "_moorage/session/resume": {},
    "_moorage/permission/respond": {"toolCallId": "call-1-1", "optionId": "allow"},
    "_moorage/grant/create": {"agent": "reader", "tools": []},
}
OF_A_GRANT: dict[str, Json] = {
    "get": {},
    "use": {"agent": "reader", "tool": "read_file"},
    "useBatch": {"agent": "reader", "tools": ["read_file"]},
    "close": {},
}


@pytest.fixture(scope="module")
def daemon() -> Iterator[DaemonProcess]:
    with tempfile.TemporaryDirectory(prefix="moorage-") as path:
        with running(Path(path) / "state", program=two_tokens.__name__) as process:
            yield process


@pytest.fixture(scope="module")
def mine(daemon: DaemonProcess) -> Iterator[Line]:
    with over_websocket(daemon) as line:
        yield line


@pytest.fixture(scope="module")
def theirs(daemon: DaemonProcess) -> Iterator[Line]:
    token = (daemon.state_dir / two_tokens.TOKEN_FILE).read_text()
    with over_websocket(daemon, token, advertises=True) as line:
        yield line


@pytest.fixture(scope="module")
def session(mine: Line) -> str:
    """A session of ours with something in it."""
    session: str = mine.ask("session/new", cwd="/", mcpServers=[]).result["sessionId"]
    mine.ask("session/prompt", sessionId=session, prompt=[{"type": "text", "text": "hello"}])
    return session


@pytest.fixture(scope="module")
def grant(mine: Line) -> str:
    return mine.grant()


def both(line: Line, method: str, params: Json, key: str, there: str) -> list[bytes]:
    """The answers about what is there and about what is not, without the id that was asked for."""
    frames: list[bytes] = []
    for asked in (there, MISSING):
        before = len(line.frames)
        told = line.ask_as(ANY_ID, method, {**params, key: asked})
        assert len(line.frames) == before + 1, "and nothing beside it"
        frames.append(told.frame.replace(asked.encode(), b"(asked)"))
    return frames


@pytest.mark.parametrize("method", OF_A_SESSION)
def test_session_of_another_principal_is_like_one_that_is_not_there(
    theirs: Line, session: str, method: str
) -> None:
    foreign, missing = both(theirs, method, OF_A_SESSION[method], "sessionId", session)

    assert foreign == missing


@pytest.mark.parametrize("verb", OF_A_GRANT)
def test_grant_of_another_principal_is_like_one_that_is_not_there(
    theirs: Line, grant: str, verb: str
) -> None:
    foreign, missing = both(theirs, f"_moorage/grant/{verb}", OF_A_GRANT[verb], "grantId", grant)

    assert foreign == missing
    assert b'"code":-31006,"message":"session not found"' in foreign


def test_artifact_of_another_principal_is_like_one_that_is_not_there(
    theirs: Line, session: str
) -> None:
    frames = [
        theirs.ask_as(ANY_ID, "_moorage/artifact/get", {"uri": f"moorage-artifact://{asked}/2"})
        for asked in (session, MISSING)
    ]

    assert frames[0].frame == frames[1].frame


def test_grant_below_another_principals_is_like_one_below_nothing(theirs: Line, grant: str) -> None:
    wish: Json = {"agent": "helper", "tools": []}

    foreign, missing = both(theirs, "_moorage/grant/create", wish, "parent", grant)

    assert foreign == missing


def test_session_on_another_principals_grant_is_like_one_on_none(theirs: Line, grant: str) -> None:
    frames: list[bytes] = []
    for asked in (grant, MISSING):
        meta = {"moorage": {"grant": {"grantId": asked}}}
        params: Json = {"cwd": "/", "mcpServers": [], "_meta": meta}
        frames.append(theirs.ask_as(ANY_ID, "session/new", params).frame)

    assert frames[0] == frames[1]
    assert b"session not found" in frames[0]


def test_lists_hold_nothing_of_another_principal(theirs: Line, session: str, grant: str) -> None:
    for method in ("session/list", "_moorage/session/live", "_moorage/grant/list"):
        told = theirs.ask(method).frame
        assert session.encode() not in told
        assert grant.encode() not in told


def test_owner_is_told_otherwise_and_nothing_of_theirs_was_touched(
    mine: Line, theirs: Line, session: str, grant: str
) -> None:
    """The control: the same questions of the one whose they are have other answers."""
    for method in ("session/status", "_moorage/session/turns", "_moorage/session/export"):
        found, missing = both(mine, method, OF_A_SESSION[method], "sessionId", session)
        assert found != missing
    found, missing = both(mine, "_moorage/grant/get", {}, "grantId", grant)
    assert found != missing
    assert mine.ask("_moorage/grant/get", grantId=grant).result["used"]["refused"] == 0
    assert len(mine.ask("_moorage/session/turns", sessionId=session).result["turns"]) == 1

"""Daemons that live for a module, and the editors that are connected to them."""

import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.daemons import DaemonProcess, running
from tests.e2e.editors import (
    Editor,
    Json,
    open_editor,
    over_bridge,
    over_stdio,
    over_websocket,
)
from tests.e2e.npm import NOT_TRIED, NoSdk, Sdk, find_sdk


@pytest.fixture(scope="session")
def sdk() -> Sdk:
    """The protocol's JavaScript SDK; without it the tests that need it are skipped, aloud."""
    try:
        return find_sdk()
    except NoSdk as reason:
        pytest.skip(f"{NOT_TRIED}: {reason}")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory with a short name: a socket's path has little room."""
    with tempfile.TemporaryDirectory(prefix="moorage-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[DaemonProcess]:
    """A daemon with the scripted agent and SQLite, as it is out of the box."""
    with running(folder / "state") as process:
        yield process
        assert process.stop() == 0


@pytest.fixture(scope="module", params=["websocket", "bridge", "stdio"])
def way(request: pytest.FixtureRequest, folder: Path) -> Callable[[str], Json]:
    """How editors come to their agent. The name is for those who start an agent of their own."""
    if request.param == "stdio":
        return lambda name: over_stdio(folder / name)
    daemon: DaemonProcess = request.getfixturevalue("daemon")
    how = over_websocket(daemon) if request.param == "websocket" else over_bridge(daemon.state_dir)
    return lambda _: how


@pytest.fixture
def how(way: Callable[[str], Json], tmp_path: Path) -> Json:
    """How an editor comes to an agent that it shares with nobody who needs it."""
    return way(tmp_path.name)


@pytest.fixture(scope="module")
def editor(way: Callable[[str], Json]) -> Generator[Editor]:
    """An editor that has said who it is; in the end, every message of the agent was right."""
    with open_editor(way("own")) as connected:
        connected.call("initialize", protocol_version=1)
        yield connected
        end = connected.leave()
        assert connected.problems() == []
        assert end in (None, {"left": 0, "stderr": ""})

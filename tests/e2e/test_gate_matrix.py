"""A part of all handshakes, over real sockets to a daemon; `scripts/torture/run gate` tries all."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.torture.gate import SETTINGS, careless_server, knock_all, leaks, matrix
from tests.e2e.daemons import DaemonProcess, running


@pytest.fixture(scope="module")
def daemon() -> Iterator[DaemonProcess]:
    with tempfile.TemporaryDirectory(prefix="moorage-") as path:
        config = Path(path) / "config.toml"
        config.write_text(SETTINGS)
        with running(Path(path) / "state", "--config", str(config)) as process:
            yield process


async def test_handshakes_are_let_in_exactly_as_the_rules_say(daemon: DaemonProcess) -> None:
    port = int(daemon.websocket.rpartition(":")[2].split("/")[0])
    everything = list(matrix(port, daemon.token))
    knocks = [each for n, each in enumerate(everything) if each.status == 101 or n % 11 == 0]

    watch = await knock_all(port, daemon.token, knocks)

    assert watch.problems == []
    assert watch.told[101] == 24
    assert len(everything) > 1300
    assert leaks(daemon.token, {"the log": daemon.log.read_bytes()}) == []


async def test_careless_server_is_noticed(daemon: DaemonProcess) -> None:
    async with careless_server(daemon.token, asks_for="token") as port:
        watch = await knock_all(port, daemon.token, list(matrix(port, daemon.token))[:200:7])

    assert watch.problems != []

"""The `moorage store` commands, with a daemon and its files."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

from tests.e2e.daemons import DaemonProcess, environment, running
from tests.e2e.wires import connect


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with TemporaryDirectory(prefix="moorage-") as path:
        yield Path(path) / "state"


@pytest.fixture
def config(state_dir: Path) -> Path:
    path = state_dir.with_name("config.toml")
    path.write_text('store = "file:"\n')
    return path


async def store(
    daemon: DaemonProcess, verb: str, *flags: str
) -> "subprocess.CompletedProcess[str]":
    command = [os.fspath(Path(sys.executable).with_name("moorage")), "store", verb, *flags]
    env = environment() | {"MOORAGE_STATE_DIR": str(daemon.state_dir)}

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return await trio.to_thread.run_sync(run)


async def test_a_sound_store_is_healthy_whole_and_has_nothing_to_clean(
    state_dir: Path, config: Path
) -> None:
    with running(state_dir, "--config", str(config)) as daemon:
        async with connect(daemon.unix) as client:
            await client.prompt(await client.new(), "hello").verdict()
        found = {verb: await store(daemon, verb) for verb in ("health", "check", "gc")}
        as_json = {verb: await store(daemon, verb, "--json") for verb in found}

    assert [result.returncode for result in [*found.values(), *as_json.values()]] == [0] * 6
    assert "file: can be written" in found["health"].stdout
    assert "all whole" in found["check"].stdout
    assert "removed 0 sessions" in found["gc"].stdout
    assert json.loads(as_json["health"].stdout)["healthy"] is True
    assert json.loads(as_json["check"].stdout)["problems"] == []
    assert json.loads(as_json["gc"].stdout)["blobs"] == 0


async def test_damage_is_found_named_and_can_be_removed(state_dir: Path, config: Path) -> None:
    with running(state_dir, "--config", str(config)) as daemon:
        async with connect(daemon.unix) as client:
            sound, damaged = await client.new(), await client.new()
            await client.prompt(damaged, "hello").verdict()
        assert daemon.stop() == 0
    journals = (state_dir / "store" / "sessions").iterdir()
    [journal] = [file for file in journals if damaged in file.read_text().split("\n")[0]]
    content = bytearray(journal.read_bytes())
    content[3] ^= 1
    journal.write_bytes(content)

    with running(state_dir, "--config", str(config)) as daemon:
        check = await store(daemon, "check")
        assert check.returncode == 1
        assert f"{damaged}: its journal is damaged at byte 0" in check.stdout
        async with connect(daemon.unix) as client:
            assert damaged in await client.listed()  # its head can be read, as it is at the end
            await client.delete(damaged)
            assert await client.listed() == [sound]
        assert (await store(daemon, "check")).returncode == 0

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

from moorage_clients.cli.exits import Exit
from tests.daemon.transfer.files import changed, exported, imported
from tests.daemon.twin import Json
from tests.e2e.commands import moorage
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


def name_lost_bytes(lines: list[Json]) -> None:
    """Let a file name bytes that it says are missing."""
    lines[0]["seq"] += 1
    body = {"sha256": "0" * 64, "size": 5, "name": "n"}
    entry = {"seq": lines[0]["seq"], "at": 1.0, "kind": "upload", "body": body}
    missing = {"sha256": "0" * 64, "size": 0, "offset": 0, "data": "", "missing": True}
    lines[-1:] = [{"entry": entry}, {"blob": missing}]


async def test_bytes_that_were_lost_before_an_import_are_told_of_and_no_damage(
    state_dir: Path, config: Path
) -> None:
    with running(state_dir, "--config", str(config)) as daemon:
        async with connect(daemon.unix) as client:
            file = await exported(client, await client.new())
            await imported(client, changed(file, name_lost_bytes))
        check = await store(daemon, "check")

    assert check.returncode == 0
    assert "1 blobs were lost before their sessions were imported" in check.stdout
    assert "all whole" in check.stdout


async def test_a_torn_commit_that_was_kept_is_noted_and_no_damage(
    state_dir: Path, config: Path
) -> None:
    with running(state_dir, "--config", str(config)) as daemon:
        (state_dir / "store" / "commits.1.torn").write_bytes(b'{"epoch":1,"pu')
        check, as_json = await store(daemon, "check"), await store(daemon, "check", "--json")

    assert (check.returncode, as_json.returncode) == (0, 0)
    assert "note: the last commit before a crash was not written whole" in check.stdout
    assert "kept as commits.1.torn: look at it, then remove the file" in check.stdout
    assert "all whole" in check.stdout
    [note] = json.loads(as_json.stdout)["notes"]
    assert "commits.1.torn" in note


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


async def test_a_session_that_cannot_be_read_is_listed_and_can_be_deleted(
    state_dir: Path, config: Path
) -> None:
    with running(state_dir, "--config", str(config)) as daemon:
        async with connect(daemon.unix) as client:
            sound, damaged, doomed = [await client.new() for _ in range(3)]
        assert daemon.stop() == 0
    journals = (state_dir / "store" / "sessions").iterdir()
    [journal] = [file for file in journals if damaged in file.read_text().split("\n")[0]]
    journal.write_bytes(b"x" * journal.stat().st_size)

    with running(state_dir, "--config", str(config)) as daemon:

        def run(*words: str) -> tuple[int, str]:
            ended = moorage(*words, state_dir=state_dir, cwd=state_dir)
            return ended.code, ended.out

        code, listed = await trio.to_thread.run_sync(run, "ls")
        _, as_json = await trio.to_thread.run_sync(run, "ls", "--json")
        _, status = await trio.to_thread.run_sync(run, "status")
        _, doctor = await trio.to_thread.run_sync(run, "doctor", "--json")
        killed = await trio.to_thread.run_sync(run, "kill", doomed, damaged[:8])
        killed_json = await trio.to_thread.run_sync(run, "kill", "--json", damaged)
        unasked = await trio.to_thread.run_sync(run, "delete", damaged)
        unknown = await trio.to_thread.run_sync(run, "delete", "--yes", damaged, "nobody")
        _, untouched = await trio.to_thread.run_sync(run, "ls")
        removed = await trio.to_thread.run_sync(run, "delete", "--yes", damaged[:8])
        _, after = await trio.to_thread.run_sync(run, "ls", "--json")
        problems = (await store(daemon, "check")).returncode

    assert code == Exit.OK
    [line] = [line for line in listed.splitlines() if line.startswith(damaged)]
    assert "  damaged  " in line
    assert line.endswith(f"removed by: moorage delete {damaged}")
    assert [row["sessionId"] for row in json.loads(as_json)["damaged"]] == [damaged]
    assert "\nstore     file, healthy, 1 session cannot be read\n" in status
    [store_found] = [f for f in json.loads(doctor)["findings"] if f["name"] == "store"]
    assert store_found["state"] == "weak"
    assert store_found["said"] == "1 session in file cannot be read"
    assert killed == (Exit.FAILED, f"{doomed}: killed\n")
    assert killed_json[0] == Exit.FAILED
    assert json.loads(killed_json[1])["sessions"] == [
        {"sessionId": damaged, "killed": False, "damaged": True}
    ]
    assert (unasked[0], unknown[0]) == (Exit.USAGE, Exit.NO_SESSION)
    assert line in untouched
    assert removed == (Exit.OK, f"{damaged}: removed\n")
    assert json.loads(after)["damaged"] == []
    assert sound in after
    assert problems == 0

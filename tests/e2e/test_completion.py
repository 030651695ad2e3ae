"""What a shell offers when a person presses TAB behind a word of `moorage`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moorage_protocol.rendezvous import is_alive
from tests.e2e.commands import PATIENCE, moorage
from tests.e2e.daemons import DaemonProcess, environment


# What bash itself does at a TAB: it calls the function that was registered, and reads COMPREPLY.
BASH = """
eval "$(moorage completion bash)"
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
$(complete -p moorage | sed 's/.*-F \\([^ ]*\\).*/\\1/') moorage
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = "moorage completion fish | source; complete -C $argv[1]"


def shell_environment(state_dir: Path) -> dict[str, str]:
    """One in which `moorage` is found, as the tests' own interpreter would run it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**environment(), "PATH": path, "MOORAGE_STATE_DIR": str(state_dir)}


def offered(words: list[str], state_dir: Path, cwd: Path) -> list[str]:
    ended = subprocess.run(
        words, env=shell_environment(state_dir), cwd=cwd, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    return [line.split("\t")[0].strip() for line in ended.stdout.splitlines() if line.strip()]


def in_bash(line: str, state_dir: Path, cwd: Path) -> list[str]:
    return offered(["bash", "--norc", "-c", BASH, "bash", line], state_dir, cwd)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("moorage config ", ["check", "show"]),
        ("moorage --json prompt --on-busy ", ["queue", "refuse", "supersede"]),
        ("moorage configure --js", ["--json"]),
        ("moorage new --cwd pro", ["project/"]),
    ],
)
def test_commands_flags_choices_and_directories_are_offered(
    tmp_path: Path, line: str, words: list[str]
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "prose").touch()

    assert in_bash(line, tmp_path / "state", tmp_path) == words


def test_every_command_is_offered(tmp_path: Path) -> None:
    told = moorage("--help", state_dir=tmp_path / "state", cwd=tmp_path).out
    commands = set(re.findall(r"^    ([a-z]+) ", told, re.MULTILINE))

    assert {"new", "prompt", "attach", "doctor", "completion"} <= commands
    assert set(in_bash("moorage ", tmp_path / "state", tmp_path)) == commands


def test_sessions_are_offered_by_the_start_of_their_ids(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    lines = [moorage("new", state_dir=daemon.state_dir, cwd=tmp_path).out for _ in range(2)]
    one, two = (line.strip() for line in lines)
    moorage("kill", two, state_dir=daemon.state_dir, cwd=tmp_path)

    def tab(line: str, state_dir: Path = daemon.state_dir) -> set[str]:
        return set(in_bash(line, state_dir, tmp_path)) & {one, two}

    assert tab(f"moorage attach {one[:2]}") == {one}
    assert tab("moorage prompt --allow ") == {one}
    assert tab(f"moorage prompt {one} ") == set()
    assert tab("moorage log ") == {one, two}
    assert tab(f"moorage --connect unix:{daemon.unix} kill ", tmp_path / "none") == {one}


def test_no_daemon_is_started_for_it_and_no_directory_made(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"

    assert in_bash("moorage attach ", state_dir, tmp_path) == []
    assert not state_dir.exists()
    assert not is_alive(state_dir)


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish to complete in")
def test_fish_is_offered_the_same(tmp_path: Path) -> None:
    words = ["fish", "--no-config", "-c", FISH, "moorage da"]

    assert offered(words, tmp_path / "state", tmp_path) == ["daemon"]

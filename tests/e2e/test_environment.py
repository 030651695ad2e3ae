"""What a command that an agent runs sees of the terminal that its session was started in."""

import os
from pathlib import Path

from tests.e2e.commands import moorage
from tests.e2e.daemons import DaemonProcess, environment


SEEN = "seen.txt"


def seen_by_a_command(daemon: DaemonProcess, cwd: Path) -> dict[str, str]:
    """The environment of a command, in the last session of `cwd`."""
    ended = moorage("prompt", "--allow", f"/run env > {SEEN}", state_dir=daemon.state_dir, cwd=cwd)
    assert ended.code == 0, ended
    lines = (cwd / SEEN).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_commands_get_path_environment_and_ssh_agent_of_the_terminal_and_nothing_else(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    lent = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "VIRTUAL_ENV": f"{tmp_path}/venv",
        "SSH_AUTH_SOCK": f"{tmp_path}/agent",
    }
    shell = {**environment(), **lent, "OPENAI_API_KEY": "a secret", "LD_LIBRARY_PATH": "/nowhere"}
    started = moorage("new", state_dir=daemon.state_dir, cwd=tmp_path, env=shell)
    assert started.code == 0, started

    seen = seen_by_a_command(daemon, tmp_path)

    assert {name: seen.get(name) for name in lent} == lent
    assert not {"OPENAI_API_KEY", "LD_LIBRARY_PATH"} & set(seen)


def test_terminal_without_a_virtual_environment_lends_none(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    shell = {
        name: value
        for name, value in environment().items()
        if name not in ("VIRTUAL_ENV", "SSH_AUTH_SOCK")
    }
    started = moorage("new", state_dir=daemon.state_dir, cwd=tmp_path, env=shell)
    assert started.code == 0, started

    seen = seen_by_a_command(daemon, tmp_path)

    assert seen["PATH"] == shell["PATH"]
    assert not {"VIRTUAL_ENV", "SSH_AUTH_SOCK"} & set(seen)

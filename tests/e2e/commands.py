"""The `moorage` command against a real daemon."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from moorage_clients.cli.exits import Exit
from tests.e2e.daemons import DaemonProcess, environment


MOORAGE = [
    sys.executable,
    "-c",
    "import sys; from moorage_clients.cli import main; sys.exit(main())",
]
PATIENCE = 60.0  # seconds a command may take on a busy machine


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def moorage(
    *words: str, state_dir: Path | None = None, cwd: Path, env: dict[str, str] | None = None
) -> Ended:
    """Run the command to its end, as a script does."""
    where = {} if state_dir is None else {"MOORAGE_STATE_DIR": str(state_dir)}
    ended = subprocess.run(
        [*MOORAGE, *words],
        env={**(environment() if env is None else env), **where},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


class Shell:
    """The command in a workspace, on one daemon."""

    def __init__(self, daemon: DaemonProcess, workspace: Path) -> None:
        self.daemon, self.workspace = daemon, workspace

    def __call__(self, *words: str) -> Ended:
        return moorage(*words, state_dir=self.daemon.state_dir, cwd=self.workspace)

    def ok(self, *words: str) -> str:
        ended = self(*words)
        assert ended.code == Exit.OK, ended
        return ended.out.strip()

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """A command that is left to itself for now."""
        where = {"MOORAGE_STATE_DIR": str(self.daemon.state_dir)}
        return subprocess.Popen(
            [*MOORAGE, *words],
            env={**environment(), **where},
            cwd=self.workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

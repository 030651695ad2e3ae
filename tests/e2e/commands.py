"""The `moorage` command against a real daemon."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.daemons import environment


MOORAGE = [
    sys.executable,
    "-c",
    "import sys; from moorage_clients.cli import main; sys.exit(main())",
]
PATIENCE = 30.0  # seconds a command may take on a busy machine


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

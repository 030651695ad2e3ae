"""Who this terminal is to the daemon, from one start of a program to the next.

The daemon issues a TUI id with a secret; whoever brings both is that TUI again, and the sessions
it started are "mine". The file is private to its user, and the first of several programs that
start together is the one whose identity stays.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec


FOLDER = "tui"  # in the state directory
MAX_BYTES = 4096  # of the file; ours has about 150


class Identity(msgspec.Struct, frozen=True):
    """A TUI id and the secret that proves it."""

    tui_id: str
    tui_secret: str


@dataclass(frozen=True)
class IdentityFile:
    """Keeps one identity at `path`."""

    path: Path

    @classmethod
    def in_state_dir(cls, state_dir: str | Path, name: str) -> "IdentityFile":
        """The identity that the programs called `name` share in a state directory."""
        return cls(Path(state_dir) / FOLDER / f"{name}.json")

    def read(self) -> Identity | None:
        """The identity that was kept; None if there is none, or none that can be used."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with os.fdopen(os.open(self.path, flags), "rb") as file:
                return msgspec.json.decode(file.read(MAX_BYTES), type=Identity)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def keep(self, identity: Identity, instead_of: Identity | None) -> None:
        """Keep a new identity; one that another program kept meanwhile stays. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.read() in (None, instead_of):
            self.path.unlink(missing_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(identity))
        try:
            os.link(draft, self.path)
        except FileExistsError:
            pass  # another program was first
        finally:
            draft.unlink()

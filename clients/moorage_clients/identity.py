"""Who this terminal is to the daemon, from one start of a program to the next.

The daemon issues a TUI id with a secret; whoever brings both is that TUI again, and the sessions
it started are "mine". The file is private to its user, and the first of several programs that
start together is the one whose identity stays. The bridge keeps its editors' identities with this
too, so it loads nothing that an editor would wait for.
"""

import json
import os
from typing import NamedTuple, cast


FOLDER = "tui"  # in the state directory
MAX_BYTES = 4096  # of the file; ours has about 150


class Identity(NamedTuple):
    """A TUI id and the secret that proves it."""

    tui_id: str
    tui_secret: str


class IdentityFile:
    """Keeps one identity at `path`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    @classmethod
    def in_state_dir(cls, state_dir: str | os.PathLike[str], name: str) -> "IdentityFile":
        """The identity that the programs called `name` share in a state directory."""
        return cls(os.path.join(state_dir, FOLDER, f"{name}.json"))

    def read(self) -> Identity | None:
        """The identity that was kept; None if there is none, or none that can be used."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with os.fdopen(os.open(self.path, flags), "rb") as file:
                found: object = json.loads(file.read(MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        known = cast("dict[str, object]", found)
        tui, secret = known.get("tui_id"), known.get("tui_secret")
        return Identity(tui, secret) if isinstance(tui, str) and isinstance(secret, str) else None

    def keep(self, identity: Identity, instead_of: Identity | None) -> None:
        """Keep a new identity; one that another program kept meanwhile stays. Raises OSError."""
        folder, name = os.path.split(self.path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if self.read() in (None, instead_of):
            _remove(self.path)
        draft = os.path.join(folder, f".{name}.{os.getpid()}")
        _remove(draft)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(json.dumps(identity._asdict()).encode())
        try:
            os.link(draft, self.path)
        except FileExistsError:
            pass  # another program was first
        finally:
            os.unlink(draft)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return

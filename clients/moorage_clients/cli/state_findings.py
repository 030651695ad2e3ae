"""What is wrong with a state directory and the files in it, as far as looking tells."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from moorage_protocol.checkup import Finding, State
from moorage_protocol.rendezvous import (
    DAEMON_NAME,
    LOCK_NAME,
    SOCKET_NAME,
    SUN_PATH,
    TOKEN_NAME,
    is_alive,
    objection_to,
)


KEY_NAME = "key"
SECRETS = (TOKEN_NAME, KEY_NAME)

LITTLE = 256 * 2**20  # bytes; a busy day of a few sessions
TOO_LITTLE = 16 * 2**20  # bytes; the daemon keeps 8 MiB back for its last words

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def look_at_state_dir(state_dir: str) -> list[Finding]:
    """The directory, what is in it, and the room that is left."""
    path = Path(state_dir)
    return [*_directory(path), *_files(path), _room(path)]


def _directory(path: Path) -> Iterator[Finding]:
    about = "state directory"
    try:
        found = path.lstat()
    except FileNotFoundError:
        yield Finding(about, State.GOOD, f"{path} is not there yet, the first start makes it")
    except OSError as error:
        yield Finding(about, State.BROKEN, f"{path}: {error.strerror}")
    else:
        if objection := objection_to(found):
            advice = f"Give it to yourself alone (chmod 700 {path}), or name another: --state-dir"
            yield Finding(about, State.BROKEN, f"{path}: {objection}", advice)
        elif found.st_mode & _OTHERS:
            said = f"{path}: others may look into it (mode {_mode(found)})"
            yield Finding(about, State.WEAK, said, f"chmod 700 {path}")
        else:
            yield Finding(about, State.GOOD, str(path))
    yield from _ways_in(path)


def _ways_in(path: Path) -> Iterator[Finding]:
    """Directories above it in which others may put another one in its place."""
    for above in path.parents:
        try:
            found = above.stat()
        except OSError:
            continue  # not there yet, or not ours to look at
        is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if is_open:
            said = f"{above} is open to everybody (mode {_mode(found)}), who can replace it"
            yield Finding("state directory", State.WEAK, said, f"chmod o-w {above}")


def _files(path: Path) -> Iterator[Finding]:
    try:
        names = sorted(found.name for found in path.iterdir())
    except OSError:
        return
    bad = [finding for name in names for finding in _file(path / name)]
    yield from bad
    if not bad and names:
        yield Finding("its files", State.GOOD, "private to you")
    if not is_alive(path) and {DAEMON_NAME, SOCKET_NAME} & set(names):
        said = "a daemon left its address behind; the next start clears it away"
        yield Finding("leftovers", State.GOOD, said)
    if not _can_be_reached(path):
        advice = "Name a shorter one with --state-dir."
        yield Finding("socket", State.BROKEN, f"{path / SOCKET_NAME} is too long a name", advice)


def _file(path: Path) -> Iterator[Finding]:
    try:
        found = path.lstat()
    except OSError:
        return  # it went meanwhile
    about = path.name
    is_secret = about in SECRETS
    if found.st_uid != os.geteuid():
        said = f"{path} belongs to uid {found.st_uid}"
        yield Finding(about, State.BROKEN, said, f"Remove it, or: sudo chown {os.geteuid()} {path}")
    elif is_secret and not stat.S_ISREG(found.st_mode):
        yield Finding(about, State.BROKEN, f"{path} is not a regular file", f"rm {path}")
    elif is_secret and found.st_mode & _OTHERS:
        said = f"others may read {path} (mode {_mode(found)}), it is not a secret any more"
        yield Finding(about, State.BROKEN, said, f"Have a new one made: rm {path}")
    elif stat.S_ISREG(found.st_mode) and found.st_mode & _OTHERS and about != LOCK_NAME:
        said = f"others may get at {path} (mode {_mode(found)})"
        yield Finding(about, State.WEAK, said, f"chmod 600 {path}")


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"


def _can_be_reached(path: Path) -> bool:
    """Whether the socket's name fits an address; on Linux there is a way around."""
    return Path("/proc/self/fd").exists() or len(os.fsencode(path / SOCKET_NAME)) < SUN_PATH


def _room(path: Path) -> Finding:
    place = next(above for above in (path, *path.parents) if above.exists())
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    said = f"{free // 2**20} MiB free where the sessions are kept"
    advice = f"Make room on the file system of {place}."
    if disk.f_files and not disk.f_favail:
        return Finding("disk", State.BROKEN, "no more files can be made there", advice)
    if free < TOO_LITTLE:
        return Finding("disk", State.BROKEN, said, advice)
    if free < LITTLE:
        return Finding("disk", State.WEAK, said, advice)
    return Finding("disk", State.GOOD, said)

"""The directory that a store of files has for itself: whose it is, and of which format."""

from pathlib import Path

import msgspec

from moorage_daemon.store.disk import DRAFT, Disk, File
from moorage_daemon.store.port import StoreBroken, StoreError


FORMAT = 1  # of the directory; a higher one is left alone
RESERVE = "reserve"
BLOBS = "blobs"

_LOCK = "lock"
_FORMAT = "store.json"
_OURS = frozenset({_LOCK, RESERVE, f"{_FORMAT}{DRAFT}"})  # what a first start that died leaves


class _Format(msgspec.Struct):
    format: int


def claim(disk: Disk) -> File:
    """Make the directory this process's own until the file is shut.

    Raises `StoreBroken` if it is another process's, something else's or a newer version's.
    """
    lock = disk.create(_LOCK)
    try:
        if not disk.lock(lock):
            raise StoreBroken(f"{disk.path} is in use by another process")
        if not _has_format(disk):
            disk.put(_FORMAT, msgspec.json.encode(_Format(FORMAT)) + b"\n")
    except StoreError:
        disk.shut(lock)
        raise
    return lock


def inspect(path: Path) -> None:
    """Raise the `StoreError` with which the directory could not be opened, if any."""
    disk = Disk(path, is_ours=False)
    try:
        _has_format(disk)
    finally:
        disk.close()


def _has_format(disk: Disk) -> bool:
    """Whether the directory is one of ours; False for a fresh one, `StoreBroken` for others."""
    found = disk.fetch(_FORMAT)
    if found is None:
        if set(disk.names()) - _OURS:
            raise StoreBroken(f"{disk.path} holds files of something else")
        return False
    try:
        stored = msgspec.json.decode(found, type=_Format).format
    except msgspec.DecodeError as error:
        raise StoreBroken(f"{disk.path / _FORMAT} cannot be read: {error}") from error
    if stored > FORMAT:
        raise StoreBroken(
            f"{disk.path} was written by a newer version: its format is {stored}, "
            f"this version knows {FORMAT}"
        )
    return True

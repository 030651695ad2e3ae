"""A file that only takes space, so that there is some for verdicts and kills when the disk is full.

SQLite cannot even delete on a full disk: what is freed for it has to lie outside the database.
"""

import logging
import os
from pathlib import Path


logger = logging.getLogger(__name__)

SIZE = 8 * 2**20  # bytes: hundreds of small commits, each a few pages of the WAL
SHARE = 8  # of a small disk the reserve takes at most one part in so many
AMPLE = 4  # the reserve is taken only if so many times its size are free


class Reserve:
    """The reserve file at `path`; it is held while the file exists in its full size."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def release(self) -> bool:
        """Free the space; False if none was held."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError:
            logger.exception("the reserve cannot be freed")
            return False
        return True

    def restore(self) -> bool:
        """Take the space if there is ample of it; whether it is held now."""
        try:
            disk = os.statvfs(self._path.parent)
            size = min(SIZE, disk.f_blocks * disk.f_frsize // SHARE)
            if self._holds(size):
                return True
            self.release()
            if disk.f_bavail * disk.f_frsize < AMPLE * size:
                return False
            self._take(size)
        except OSError:
            logger.exception("the reserve cannot be taken")
            self.release()
            return False
        return True

    def _holds(self, size: int) -> bool:
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return False
        # Blocks of 512 bytes, whatever the file system uses: a sparse copy holds nothing.
        return found.st_size == size and found.st_blocks * 512 >= size

    def _take(self, size: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self._path, flags, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:  # macOS
                os.write(handle, bytes(size))
        finally:
            os.close(handle)

"""A provider's key, read when it is sent.

It is in no object that lives longer than the request, so changing the file or logging an object
needs no thought. A key that others can read is refused: it is not a secret any more.
"""

import os
import re
import stat
from pathlib import Path

import trio

from moorage_daemon.provider_settings import ProviderSettings
from moorage_daemon.providers.failures import AuthFailed


MAX_KEY = 4096  # bytes; signed tokens have some 2,000
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY}}}")  # what an HTTP header takes
OTHERS = stat.S_IRWXG | stat.S_IRWXO


async def read_key(settings: ProviderSettings) -> str | None:
    """The key, None for a provider that has none; raises `AuthFailed`, which does not quote it."""
    if settings.api_key_env is not None:
        return _checked(os.environ.get(settings.api_key_env, ""), settings.api_key_env)
    if settings.api_key_file is None:
        return None
    # in a thread, as a home directory can lie on a network
    found = await trio.to_thread.run_sync(_read, settings.api_key_file, abandon_on_cancel=True)
    return _checked(found, str(settings.api_key_file))


def _checked(text: str, source: str) -> str:
    key = text.strip()
    if not key:
        raise AuthFailed(f"there is no key in {source}")
    if not _KEY.fullmatch(key):
        raise AuthFailed(f"what is in {source} is no key")
    return key


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO does not hold us up
    except OSError as error:
        raise AuthFailed(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _content(path, descriptor)
    finally:
        os.close(descriptor)


def _content(path: Path, descriptor: int) -> str:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
        raise AuthFailed(f"{path} is not a regular file of this user")
    if stat.S_IMODE(found.st_mode) & OTHERS:
        raise AuthFailed(f"{path} can be used by others: it needs mode 0600")
    try:
        return os.read(descriptor, MAX_KEY + 1).decode("ascii")
    except (OSError, UnicodeDecodeError):
        raise AuthFailed(f"{path} holds no key") from None

"""A provider's key, read when it is sent.

It is in no object that lives longer than the request, so changing the file or logging an object
needs no thought. A key that others can read is refused: it is not a secret any more.
"""

import os
import re
from pathlib import Path

import trio

from moorage_daemon.provider_settings import ProviderSettings
from moorage_daemon.providers.failures import AuthFailed
from moorage_daemon.secret_file import UnusableSecret, read_secret


MAX_KEY = 4096  # bytes; signed tokens have some 2,000
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY}}}")  # what an HTTP header takes


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
        return read_secret(path, MAX_KEY).decode("ascii")
    except UnusableSecret as problem:
        raise AuthFailed(str(problem)) from None
    except UnicodeDecodeError:
        raise AuthFailed(f"{path} holds no key") from None

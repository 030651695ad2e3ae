"""Where credentials are, and reading them when they are used.

They are kept nowhere. One that cannot be read is missing, and the operator's log says why.
"""

import logging
import os
from collections.abc import Collection, Mapping

import trio

from moorage_daemon.grant_settings import CredentialSource
from moorage_daemon.scrubbing import MIN_SECRET
from moorage_daemon.secret_file import UnusableSecret, read_secret


logger = logging.getLogger(__name__)

MAX_SECRET = 64 * 2**10  # bytes; a key file has a few


class Credentials:
    """The credentials that the settings name."""

    def __init__(self, sources: Mapping[str, CredentialSource]) -> None:
        self._sources = sources

    async def read(self, names: Collection[str]) -> dict[str, str]:
        """Those of the names that there are, with what they are now."""
        wanted = {name: self._sources[name] for name in names if name in self._sources}
        files = {name: source for name, source in wanted.items() if source.file is not None}
        found = _read_all({name: wanted[name] for name in wanted.keys() - files})
        if files:  # in a thread, as a home directory can lie on a network
            found |= await trio.to_thread.run_sync(_read_all, files, abandon_on_cancel=True)
        return found


def _read_all(wanted: Mapping[str, CredentialSource]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, source in wanted.items():
        try:
            found[name] = _checked(_read(source))
        except UnusableSecret as problem:
            logger.warning("a credential cannot be used: %s", problem, extra={"name_of_it": name})
    return found


def _read(source: CredentialSource) -> str:
    if source.env is not None:
        return os.environ.get(source.env, "")
    assert source.file is not None
    data = read_secret(source.file, MAX_SECRET)
    if len(data) > MAX_SECRET:
        raise UnusableSecret(f"{source.file} is longer than {MAX_SECRET} bytes")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise UnusableSecret(f"{source.file} is no text") from None


def _checked(secret: str) -> str:
    if len(secret) < MIN_SECRET:
        raise UnusableSecret(f"it has less than {MIN_SECRET} characters, or there is none")
    if "\0" in secret:
        raise UnusableSecret("no program can be given a NUL")
    return secret

"""A daemon that is named by its address instead of its state directory.

A token is as good as a shell, so it is never on a command line, never in an address, and goes over
no network in the clear: `ws://` leads to this machine only, where ssh may lead it on.
"""

import hashlib
import ipaddress
import os
import re
from urllib.parse import urlsplit

from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Remote
from moorage_clients.cli.private_files import read_private


PATH = "/acp"
MAX_TOKEN = 4096  # bytes; ours have 43
_TOKEN = re.compile(r"[\x21-\x7e]+")

FORWARD = (
    "ws:// leads to this machine only, as it would show the token to the network. For another one: "
    "ssh -L PORT:127.0.0.1:PORT HOST, then --connect ws://127.0.0.1:PORT/acp"
)


def name_of(remote: Remote) -> str:
    """What files are called that belong to that daemon."""
    return hashlib.sha256(remote.address.encode()).hexdigest()[:16]


def token_of(remote: Remote) -> str | None:
    """What its file holds; raises `Failure`."""
    return None if remote.token_file is None else _read(remote.token_file)


def read_address(given: str, *, has_token: bool) -> str:
    """The address that was written, made whole; raises `ValueError` with what to write instead."""
    if given.startswith("unix:"):
        if has_token:
            raise ValueError("--connect: a unix socket knows its user and takes no token")
        return "unix:" + os.path.abspath(given.removeprefix("unix:"))  # noqa: PTH100 - no ~
    try:
        url = urlsplit(given)
        _ = url.port
    except ValueError:
        raise ValueError("--connect: that is no address; look at its port and brackets") from None
    if url.scheme not in ("ws", "wss") or not url.hostname:
        raise ValueError("--connect: write ws://127.0.0.1:PORT/acp, wss://HOST/acp or unix:PATH")
    if "@" in url.netloc or url.query or url.fragment:
        raise ValueError(
            "--connect: an address holds no secret; --token-file FILE names where it is"
        )
    if not has_token:
        raise ValueError("--connect: say --token-file FILE too, with what is in the daemon's token")
    if url.scheme == "ws" and not _is_here(url.hostname):
        raise ValueError(f"--connect: {FORWARD}")
    return given if url.path.strip("/") else f"{url.scheme}://{url.netloc}{PATH}"


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: str) -> str:
    option = f"--token-file {path}"
    content = read_private(path, option, MAX_TOKEN)
    token = content.decode("ascii", "replace").strip()
    if len(content) > MAX_TOKEN or not _TOKEN.fullmatch(token):
        problem = f"{option}: what is in it is no token"
        raise Failure(
            Exit.USAGE, problem, "It is in the file token of the daemon's state directory."
        )
    return token

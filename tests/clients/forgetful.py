"""Bridges that lose the place of their editor: what a check of the real one has to notice.

As a program: python -m tests.clients.forgetful WHICH STATE_DIR [ADDRESS TOKEN_FILE]
"""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from moorage_clients.bridge.elsewhere import WebsocketPlace
from moorage_clients.bridge.exchange import Exchange
from moorage_clients.bridge.hello import IdentityFiles
from moorage_clients.bridge.launch import StateDir
from moorage_clients.bridge.places import Places
from moorage_clients.bridge.relay import Relay
from moorage_clients.bridge.search import Finder, Search


class Nowhere(Places):
    """Follows no session again."""

    def __iter__(self) -> Iterator[str]:
        return iter(())


class FromTheStart(Places):
    """Does not know how far the editor is."""

    def to_go_on(self, session: str) -> dict[str, object]:
        return {**super().to_go_on(session), "afterSeq": 0}


class FromNow(Places):
    """Follows sessions again, and does not ask for what was missed."""

    def to_go_on(self, session: str) -> dict[str, object]:
        params = super().to_go_on(session)
        params.pop("afterSeq", None)
        return params


FORGETFUL: dict[str, type[Places]] = {
    "nowhere": Nowhere,
    "from the start": FromTheStart,
    "from now": FromNow,
}


def main(which: str, state_dir: str, address: str = "", token_file: str = "") -> None:
    finder: Finder[socket.socket] = StateDir(state_dir)
    if address:
        finder = WebsocketPlace(address, Path(token_file).read_text().strip())
    exchange = Exchange(IdentityFiles(state_dir), "forgetful", FORGETFUL[which]())
    Relay(exchange, Search(finder, time.monotonic()), 0, 1).run()


if __name__ == "__main__":
    main(*sys.argv[1:])

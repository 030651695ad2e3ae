"""What a turn tells: its words, piece by piece, and everything else that clients are shown of it.

All of it passes here, so nothing is told with a secret in it and nothing once the turn is over.
"""

from dataclasses import dataclass

import msgspec
import trio

from moorage_daemon.agents.port import StageClosed
from moorage_daemon.log.log import Log
from moorage_daemon.store.model import Kind
from moorage_daemon.turn.secrecy import Secrecy
from moorage_protocol.jsonrpc import encode


BREATH = 8  # pieces of text after which a busy agent lets others run: some 20 µs


@dataclass(eq=False)
class Voice:
    """The voice of one turn; `is_closed` from its end on."""

    log: Log
    generation: int
    secrecy: Secrecy
    is_closed: bool = False
    _spoken: int = 0
    _messages: int = 0

    def must_be_open(self) -> None:
        """Raise `StageClosed` once it is closed."""
        if self.is_closed:
            raise StageClosed

    async def stream(self, update: str, text: str) -> None:
        """Say the next piece of what an `update` is made of."""
        self.must_be_open()
        self._tell(update, self.secrecy.piece(update, text))
        self._spoken += 1
        if self._spoken % BREATH == 0:
            await trio.lowlevel.checkpoint()
        await self.log.room()

    def _tell(self, update: str, text: str) -> None:
        if text:
            message = f"{self.generation}-{self._messages}-{update[6]}"
            self.log.append_text(update, text, message, self.generation)

    def end_message(self) -> None:
        """What is said from here on is a new message; of this one nothing is held back any more."""
        for update, rest in self.secrecy.rest():
            self._tell(update, rest)
        self._messages += 1

    def show(self, kind: Kind, update: msgspec.Struct) -> int:
        """Show something that is no text; gives its entry."""
        self.must_be_open()
        self.end_message()
        return self.record(kind, encode(update))

    def record(self, kind: Kind, body: msgspec.Struct | bytes) -> int:
        """Write an entry of the turn."""
        return self.log.append(kind, body, generation=self.generation)

    def close(self) -> None:
        """Tell what was held back, and nothing after that."""
        self.end_message()
        self.is_closed = True

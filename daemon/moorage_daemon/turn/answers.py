"""The answers that models give a turn, as far as a budget is concerned.

Before one is asked for, what it may take is held; behind it that is settled by what it took. Where
nobody tells, because it was cut off or its provider does not count, what was asked and heard is
what it took, as far as that was held.
"""

from dataclasses import dataclass

from moorage_daemon.grants.holds import Wish
from moorage_daemon.ledger.holding import Held
from moorage_daemon.ledger.ledger import Origin
from moorage_daemon.turn.ground import Ground


BYTES_A_TOKEN = 4  # of text, more or less, in any language


@dataclass(eq=False)
class _Answer:
    wish: Wish
    held: Held
    heard: int = 0  # bytes


@dataclass(eq=False)
class Answers:
    """One answer after the other; `origin` is the turn's."""

    ground: Ground
    origin: Origin
    _answer: _Answer | None = None

    async def begin(self, wish: Wish) -> int | None:
        """Hold what an answer may take, on disk when this returns; gives the most tokens of it.

        None where nothing bounds it. Raises `Refused` where nothing is left, and `StorageError`.
        """
        self.settle()
        held = await self.ground.hold(wish, self.origin)
        if held is None:
            return None
        self._answer = _Answer(wish, held)
        try:
            await held.durable()
        except BaseException:
            self.drop()
            raise
        return held.hold.most

    def hear(self, text: str) -> None:
        """A piece of it came."""
        if self._answer is not None:
            self._answer.heard += len(text.encode(errors="replace"))

    def take(self) -> Held | None:
        """What was held for it, now that it is told what it took."""
        answer, self._answer = self._answer, None
        return answer.held if answer is not None else None

    def drop(self) -> None:
        """It was not given: nothing of it was taken."""
        held = self.take()
        if held is not None:
            self.ground.settle(held, 0, 0, self.origin)

    def settle(self) -> None:
        """Nobody tells what it took."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        hold = answer.held.hold
        tokens, micros = answer.wish.taken(-(-answer.heard // BYTES_A_TOKEN))
        tokens = min(tokens, hold.tokens or tokens)
        micros = min(micros, hold.micros or micros)
        self.ground.settle(answer.held, tokens, micros, self.origin)

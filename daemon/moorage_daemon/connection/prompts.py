"""The prompts that a client waits for: each is answered when its turn has a verdict.

A prompt sent again names a turn that is there already. However often that happens, a turn hears of
a connection once, and forgets it when the client has gone: turns outlive many connections.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from moorage_daemon.session import Session
from moorage_daemon.turn.turn import Turn
from moorage_protocol.errors import Overloaded
from moorage_protocol.jsonrpc import RequestId


MAX_AGAIN = 64  # prompts beside the first of their turn; a client has no use for one of them


@dataclass(eq=False, slots=True)
class _Awaited:
    session: Session
    requests: list[RequestId]


@dataclass(eq=False, slots=True)
class Prompts:
    """Of one connection; `answer` is called for each of them, once."""

    answer: Callable[[RequestId, Session, Turn], None]
    _awaited: dict[Turn, _Awaited] = field(default_factory=dict[Turn, _Awaited])
    _again: int = 0

    def wait(self, request_id: RequestId, session: Session, turn: Turn) -> None:
        """Have a prompt answered, at once if its turn is judged already; raises `Overloaded`."""
        if turn.verdict is not None:
            self.answer(request_id, session, turn)
        elif turn not in self._awaited:
            self._awaited[turn] = _Awaited(session, [request_id])
            turn.watch(self._concluded)
        elif self._again < MAX_AGAIN:
            self._awaited[turn].requests.append(request_id)
            self._again += 1
        else:
            raise Overloaded

    def find(self, request_id: RequestId) -> tuple[Session, Turn] | None:
        """The turn that a prompt waits for."""
        for turn, awaited in self._awaited.items():
            if request_id in awaited.requests:
                return awaited.session, turn
        return None

    def _concluded(self, turn: Turn) -> None:
        awaited = self._awaited.pop(turn)
        self._again -= len(awaited.requests) - 1
        for request_id in awaited.requests:
            self.answer(request_id, awaited.session, turn)

    def close(self) -> None:
        """The client is gone: its turns go on without it."""
        for turn in self._awaited:
            turn.unwatch(self._concluded)
        self._awaited.clear()

"""The session a turn is played in, as far as its stage may see it."""

from typing import Protocol

from moorage_daemon.log.log import Log
from moorage_daemon.record import Record
from moorage_daemon.turn.artifacts import Blobs
from moorage_daemon.turn.asks import Asks
from moorage_daemon.turn.ground import Ground, Trouble
from moorage_daemon.turn.history import History
from moorage_daemon.turn.standing import StandingAnswers
from moorage_daemon.turn.turn import Turn
from moorage_protocol.config import Confirmation


class Scene(Protocol):
    """The session a stage stands in."""

    @property
    def record(self) -> Record:
        """What is written of it."""
        ...

    @property
    def log(self) -> Log:
        """Where all of it is written."""
        ...

    @property
    def asks(self) -> Asks:
        """The session's questions."""
        ...

    @property
    def may_start(self) -> bool:
        """Whether anything may still be started."""
        ...

    @property
    def blobs(self) -> Blobs:
        """Where long output is kept."""
        ...

    @property
    def ground(self) -> Ground:
        """Its grant, and the rules below it."""
        ...

    @property
    def confirmation(self) -> Confirmation:
        """Who is asked, for how long, and what becomes of a question nobody answers."""
        ...

    def halt(self, turn: Turn, trouble: Trouble) -> None:
        """Have a turn stop that cannot go on."""
        ...

    @property
    def history(self) -> History:
        """What was said in it so far."""
        ...

    @property
    def standing(self) -> StandingAnswers:
        """What the user allowed for the whole session."""
        ...

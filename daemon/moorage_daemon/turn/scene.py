"""The session a turn is played in, as far as its stage may see it."""

from collections.abc import Mapping
from typing import Protocol

from moorage_daemon.agents.port import Compaction, ModelCall
from moorage_daemon.log.log import Log
from moorage_daemon.store.model import Totals
from moorage_daemon.turn.artifacts import Blobs
from moorage_daemon.turn.asks import Asks
from moorage_daemon.turn.ground import Ground, Trouble
from moorage_daemon.turn.history import History
from moorage_daemon.turn.standing import StandingAnswers
from moorage_daemon.turn.turn import Turn
from moorage_protocol.config import Confirmation
from moorage_protocol.moorage import Posture


class Scene(Protocol):
    """The session a stage stands in."""

    @property
    def log(self) -> Log:
        """Where all of it is written."""
        ...

    @property
    def asks(self) -> Asks:
        """The session's questions."""
        ...

    @property
    def cwd(self) -> str:
        """Its working directory."""
        ...

    @property
    def environment(self) -> Mapping[str, str] | None:
        """What its creator lent to its tools."""
        ...

    @property
    def may_start(self) -> bool:
        """Whether anything may still be started."""
        ...

    @property
    def posture(self) -> Posture:
        """What tools may do unasked, now."""
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

    @property
    def owner(self) -> str:
        """The TUI whose session it is."""
        ...

    def halt(self, turn: Turn, trouble: Trouble) -> None:
        """Have a turn stop that cannot go on."""
        ...

    def note_cost(self, generation: int, call: ModelCall) -> Totals:
        """Record what an answer of a model took; gives what the session took so far."""
        ...

    @property
    def totals(self) -> Totals:
        """What the session took so far."""
        ...

    def note_compaction(self, generation: int, compaction: Compaction) -> int:
        """Record that a summary stands for the first turns; gives the entry that says so."""
        ...

    @property
    def compacted(self) -> int:
        """The entry with the summary that stands for the first turns, 0 if none does."""
        ...

    @property
    def history(self) -> History:
        """What was said in it so far."""
        ...

    @property
    def standing(self) -> StandingAnswers:
        """What the user allowed for the whole session."""
        ...

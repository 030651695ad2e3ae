"""What a log says of its session's turns, and whether the head says the same.

Head and entries are written in one commit, so they agree; not where a medium was damaged, where a
part was put back from a backup, or in a file that somebody wrote by hand. Then the log is right:
it is what happened, and the head only says how it ended.
"""

import logging
from dataclasses import dataclass, field

from msgspec.structs import replace

from moorage_daemon.store.model import (
    CompactionBody,
    CostBody,
    Entry,
    Head,
    Kind,
    Life,
    StateBody,
    Totals,
    UnreadableBody,
    added,
    read_body,
)


logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Account:
    """The turns of a log and what they took, entry by entry.

    `is_whole` is False where a part of the log is missing: then what was not seen may still be.
    """

    is_whole: bool = True
    highest: int = 0
    life: Life | None = None
    admitted: set[int] = field(default_factory=set[int])
    ended: set[int] = field(default_factory=set[int])
    totals: Totals = field(default_factory=Totals)
    compacted: int = 0

    def take(self, entry: Entry) -> None:
        """Hear the next entry."""
        try:
            self._read(entry)
        except UnreadableBody:
            self.is_whole = False
        if entry.generation is None:
            return
        self.highest = max(self.highest, entry.generation)
        if entry.kind == Kind.PROMPT:
            self.admitted.add(entry.generation)
        elif entry.kind == Kind.VERDICT:
            self.ended.add(entry.generation)

    def _read(self, entry: Entry) -> None:
        if entry.kind == Kind.COST:
            self.totals = added(self.totals, read_body(entry, CostBody))
        elif entry.kind == Kind.COMPACTION:
            if read_body(entry, CompactionBody).summary is not None:
                self.compacted = entry.seq
        elif entry.kind == Kind.STATE and self.life is not Life.KILLED:
            self.life = read_body(entry, StateBody).state

    def open_turns(self, head: Head) -> tuple[int, ...]:
        """The turns without a verdict, in their order."""
        known = self.admitted if self.is_whole else self.admitted | {*head.open_turns}
        return tuple(sorted(known - self.ended))

    def agreed(self, head: Head) -> Head:
        """The head as the log has it; what a log cannot say stays as it is."""
        agreed = replace(
            head,
            generation=max(head.generation, self.highest),
            open_turns=self.open_turns(head),
            life=Life.KILLED if self.life is Life.KILLED else head.life,
            totals=self.totals if self.is_whole else head.totals,
            compacted=self.compacted if self.is_whole else max(head.compacted, self.compacted),
        )
        if agreed != head:
            logger.error(
                "a head disagrees with its log: the log counts",
                extra={
                    "session": head.id,
                    "head": (head.generation, head.open_turns, head.life),
                    "log": (agreed.generation, agreed.open_turns, agreed.life),
                },
            )
        return agreed

"""What a user allowed for the whole of a session.

The record is the intent that such an answer led to; so it survives a restart, and is read from
the log when it is first asked for.
"""

from dataclasses import dataclass

from moorage_daemon.store.model import Entry, IntentBody, Kind, UnreadableBody, read_body
from moorage_daemon.store.port import Store


@dataclass(eq=False)
class StandingAnswers:
    """The rules of one session that were answered with "always"."""

    store: Store
    session_id: str
    _rules: set[str] | None = None

    async def covers(self, rule: str) -> bool:
        """Whether an earlier answer allowed that."""
        if self._rules is None:
            self._rules = await self._recall()
        return rule in self._rules

    def add(self, rule: str) -> None:
        """Remember an answer; its record is the intent that follows."""
        if self._rules is not None:
            self._rules.add(rule)

    async def _recall(self) -> set[str]:
        rules: set[str] = set()
        after, more = 0, True
        while more:
            page = await self.store.entries(self.session_id, after, kinds=_INTENTS)
            for entry in page.entries:
                after = entry.seq
                if entry.kind == Kind.IMPORTED:
                    rules.clear()  # what a file says was allowed nobody here has allowed
                rules |= _rule(entry)
            more = page.more
        return rules


def _rule(entry: Entry) -> set[str]:
    """The rule of an intent; one that cannot be read allows nothing."""
    if entry.kind != Kind.INTENT:
        return set()
    try:
        body = read_body(entry, IntentBody)
    except UnreadableBody:
        return set()
    return {body.rule} if body.rule else set()


_INTENTS = frozenset({Kind.INTENT, Kind.IMPORTED})

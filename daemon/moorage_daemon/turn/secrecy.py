"""What a turn must not tell: the secrets of its prompt, and credentials that its calls may use.

An agent knows the first, as they were given to it, and not the second. Neither is in anything that
is written or told of the turn: all of that passes here.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from moorage_daemon.grants.credentials import reference, scrubber_of
from moorage_daemon.scrubbing import Scrubber, Stream
from moorage_daemon.tools.port import Report
from moorage_daemon.turn.shown import MARK
from moorage_protocol.acp import PlanEntry, ToolCallLocation
from moorage_protocol.views import Check, Verification


class Secrecy:
    """The secrets of one turn; without any nothing is looked for."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._credentials: Mapping[str, str] = {}
        self._for_agents: Scrubber | None = None
        self._all = Scrubber(dict.fromkeys(secrets, MARK)) if secrets else None
        self._streams: dict[str, Stream] = {}

    def learn(self, credentials: Mapping[str, str]) -> None:
        """Credentials that nothing is to tell from here on, by name; instead of earlier ones.

        No text may be held back when it is called.
        """
        if credentials == self._credentials:
            return
        self._credentials = credentials
        self._for_agents = scrubber_of(credentials) if credentials else None
        marks = dict.fromkeys(self._secrets, MARK)
        marks |= {secret: reference(name) for name, secret in credentials.items()}
        self._all = Scrubber(marks) if marks else None
        self._streams.clear()

    # ---- what is told

    def piece(self, channel: str, text: str) -> str:
        """What can be told of a text of which that is the next piece."""
        if self._all is None:
            return text
        return self._streams.setdefault(channel, Stream(self._all)).feed(text)

    def rest(self) -> Iterator[tuple[str, str]]:
        """What is held back of each text, as far as it can be told before something else is."""
        for channel, stream in self._streams.items():
            if rest := stream.pause():
                yield channel, rest

    def text(self, text: str, *, is_cut: bool = False) -> str:
        """A text; `is_cut` says that it may begin or end in the middle of a secret."""
        return text if self._all is None else self._all.scrub(text, is_cut=is_cut)

    def json(self, raw: bytes) -> bytes:
        """JSON of which nobody reads more than what it looks like."""
        return raw if self._all is None else self._all.scrub_json(raw)

    def stands_in(self, text: str) -> bool:
        """Whether a secret stands in it."""
        return self._all is not None and self._all.is_in(text)

    def entries(self, entries: Sequence[PlanEntry]) -> list[PlanEntry]:
        """The steps of a plan."""
        return [replace(entry, content=self.text(entry.content)) for entry in entries]

    def locations(self, locations: Sequence[ToolCallLocation]) -> list[ToolCallLocation]:
        """The files of a call."""
        return [replace(location, path=self.text(location.path)) for location in locations]

    def verification(self, report: Verification) -> Verification:
        """What was verified."""
        return replace(
            report,
            subject=self.text(report.subject),
            checks=tuple(map(self._check, report.checks)),
            risks=tuple(map(self.text, report.risks)),
        )

    def _check(self, check: Check) -> Check:
        return replace(
            check,
            id=self.text(check.id),
            kind=self.text(check.kind),
            description=self.text(check.description),
            suggested_tools=tuple(map(self.text, check.suggested_tools)),
            evidence=tuple(map(self.text, check.evidence)),
            risk=None if check.risk is None else self.text(check.risk),
        )

    def report(self, report: Report) -> Report:
        """What came of a call, as it is told."""
        return _without(report, self._all)

    # ---- what the agent hears

    def report_for_agent(self, report: Report) -> Report:
        """The same as its agent hears it, which knows the secrets of its prompt."""
        return _without(report, self._for_agents)


def _without(report: Report, scrubber: Scrubber | None) -> Report:
    if scrubber is None:
        return report
    whole = None if report.whole is None else scrubber.scrub(report.whole)
    text = scrubber.scrub(report.text, is_cut=whole is not None)
    return replace(report, text=text, whole=whole)

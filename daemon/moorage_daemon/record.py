"""What is written of a session: its head and its log, which change together.

Each change of the head goes into the commit of the entries that tell of it. Whether a change is
wanted is decided by others; here it is only whether it can be written.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from moorage_daemon.agents.port import Compaction, ModelCall, Vain
from moorage_daemon.log.log import Log
from moorage_daemon.log.render import iso
from moorage_daemon.store.model import (
    ArchiveBody,
    CompactionBody,
    ConfigBody,
    CostBody,
    Head,
    Kind,
    Life,
    OverrideBody,
    PostureBody,
    StateBody,
    Totals,
    added,
)
from moorage_protocol.acp import (
    ConfigOption,
    ConfigOptionUpdate,
    CurrentModeUpdate,
    SessionInfoUpdate,
)
from moorage_protocol.config import ConfigPatch
from moorage_protocol.errors import NotFound, SessionState, Stopping, StorageError
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import DetachReason, Overrides, Posture


@dataclass(eq=False)
class Record:
    """The head as it is now, and the log; `ends` says why nothing is to begin any more.

    `vain` is the last summary that was tried for, if it came to nothing: only memory keeps that.
    """

    head: Head
    log: Log
    ends: DetachReason | None = None
    vain: Vain | None = None

    # ---- what it says

    @property
    def is_killed(self) -> bool:
        """Whether the session is over for good."""
        return self.head.life is Life.KILLED

    @property
    def cwd(self) -> str:
        """The working directory, absolute."""
        return self.head.cwd

    @property
    def environment(self) -> Mapping[str, str] | None:
        """What its creator lent to its tools."""
        return self.head.environment

    @property
    def posture(self) -> Posture:
        """What its tools may do unasked."""
        return self.head.posture

    @property
    def owner(self) -> str:
        """The TUI whose it is."""
        return self.head.owner

    @property
    def totals(self) -> Totals:
        """What it took so far."""
        return self.head.totals

    @property
    def compacted(self) -> int:
        """The entry with the summary that stands for its first turns, 0 if none does."""
        return self.head.compacted

    @property
    def info(self) -> SessionInfoUpdate:
        """What clients list it by."""
        return SessionInfoUpdate(title=self.head.title, updated_at=iso(self.head.updated_at))

    # ---- writing

    def must_be_writable(self) -> None:
        """Raise `NotFound`, `SessionState`, `StorageError` or `Stopping` where nothing is to be
        written that somebody asks for."""
        if self.is_killed:
            raise NotFound
        if self.log.failed:
            raise SessionState("The session's log cannot be written")
        if self.log.writes.full:
            raise StorageError
        if self.ends is DetachReason.SHUTDOWN:
            raise Stopping
        if self.ends is not None:
            raise SessionState("The session is being closed")

    def change(self, **changes: object) -> None:
        """Write the head with changes, in the commit of the next entry."""
        self.head = replace(self.head, updated_at=self.log.writes.now(), **changes)
        self.log.write_head(self.head)

    def live_on(self, life: Life, by: str, reason: str | None = None) -> int:
        """Let it be active, paused or killed; gives the entry that says so."""
        self.change(life=life)
        return self.log.append(Kind.STATE, StateBody(state=life, by=by, reason=reason))

    # ---- settings; each raises as `must_be_writable` does

    def configure(self, overrides: Overrides, options: list[ConfigOption], by: str) -> int:
        """Set the overrides; gives the entry that tells of it. A running turn keeps its own.

        `options` are the same in the form that clients show.
        """
        self.must_be_writable()
        self.change(overrides=overrides)
        self.log.append(Kind.OVERRIDE, OverrideBody(overrides, by))
        return self.log.append(Kind.UPDATE, encode(ConfigOptionUpdate(config_options=options)))

    def set_up(self, patch: ConfigPatch, changes: Mapping[str, object], by: str) -> int:
        """Take over a change of the configuration; gives the last entry that tells of it.

        `changes` are what the patch means for the head.
        """
        self.must_be_writable()
        title = self.head.title
        self.change(**changes)
        seq = self.log.append(Kind.CONFIG, ConfigBody(patch, by))
        if self.head.title != title:
            seq = self.log.append(Kind.UPDATE, encode(self.info))
        return seq

    def file(self, by: str, *, archived: bool) -> int:
        """Take it off the usual list, or put it back; gives the entry that says so."""
        self.must_be_writable()
        self.change(archived=archived)
        return self.log.append(Kind.ARCHIVE, ArchiveBody(archived, by))

    def take_posture(self, posture: Posture, options: list[ConfigOption], by: str) -> int:
        """Change what tools may do, from the next call of a running turn on; gives the last entry.

        `options` are all of the session's, with the posture as one of them.
        """
        self.must_be_writable()
        self.change(posture=posture)
        self.log.append(Kind.POSTURE, PostureBody(posture, by))
        self.log.append(Kind.UPDATE, encode(CurrentModeUpdate(current_mode_id=posture)))
        return self.log.append(Kind.UPDATE, encode(ConfigOptionUpdate(config_options=options)))

    # ---- what a turn took

    def note_cost(self, generation: int, call: ModelCall) -> Totals:
        """Record what an answer of a model took, and the new totals in the same commit."""
        body = CostBody(
            provider=call.provider,
            model=call.model,
            tokens=call.tokens,
            micros=call.micros,
            window=call.window,
            purpose=call.purpose,
        )
        totals = added(self.head.totals, body)
        self.change(totals=totals)
        self.log.append(Kind.COST, body, generation=generation)
        return totals

    def note_compaction(self, generation: int, compaction: Compaction) -> int:
        """Record that a summary stands for the first turns, and where, in the same commit."""
        upto, summary, code = compaction.upto, compaction.summary, compaction.code
        body = CompactionBody(upto=upto, summary=summary, code=code)
        self.vain = Vain(generation, compaction.fill) if summary is None else None
        if summary is not None:
            self.change(compacted=self.log.seq + 1)
        return self.log.append(Kind.COMPACTION, body, generation=generation)

    def restate(self, summary: CompactionBody) -> int:
        """Repeat a summary whose entry is about to be removed; nobody has used the session by
        that."""
        self.head = replace(self.head, compacted=self.log.seq + 1)
        self.log.write_head(self.head)
        return self.log.append(Kind.COMPACTION, summary, generation=self.head.generation)

"""What one client was told of one session, checked as it comes and against the log.

The rule is that of a client which advertised moorage: one message for each number, in order, none
twice. A ledger outlives its connections: `last` is where the next one goes on.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec


Json = dict[str, Any]


def digest(told: Json) -> bytes:
    """What two tellings of one entry have in common, whatever form each has.

    An update is told without its kind, and no message says when the entry was written.
    """
    dropped = {"at", "sessionId", "kind"} if "update" in told else {"at", "sessionId"}
    kept = {name: value for name, value in told.items() if name not in dropped}
    text = msgspec.json.encode(kept, order="deterministic")
    return hashlib.blake2b(text, digest_size=16).digest()


def told_entry(method: str, params: Json) -> Json | None:
    """The entry that a notification tells, None if it tells none."""
    if method == "_moorage/session/entry":
        return params
    mark = params.get("_meta", {}).get("moorage", {})
    if method != "session/update" or "seq" not in mark:
        return None
    return {**mark, "update": params["update"]}


@dataclass(eq=False)
class Ledger:
    """The entries of one session that were told, and what was wrong with their order."""

    session: str
    last: int = 0
    problems: list[str] = field(default_factory=list[str])
    told: dict[int, bytes] = field(default_factory=dict[int, bytes])
    verdicts: dict[int, Json] = field(default_factory=dict[int, Json])
    admitted: set[int] = field(default_factory=set[int])
    shown: str = ""  # what a tool call last showed of its output
    _text: dict[int, list[str]] = field(default_factory=dict[int, list[str]])

    def take(self, entry: Json) -> None:
        """The client was told this."""
        seq = int(entry["seq"])
        if seq <= self.last:
            self.problems.append(f"{self.session}: {seq} after {self.last}: duplicate or reordered")
        elif seq > self.last + 1:
            self.problems.append(f"{self.session}: {seq} after {self.last}: gap")
        self.last = max(self.last, seq)
        if self.told.setdefault(seq, digest(entry)) != digest(entry):
            self.problems.append(f"{self.session}: {seq} was told in two ways")
        self._note(entry)

    def _note(self, entry: Json) -> None:
        generation = int(entry.get("generation", 0))
        if entry.get("kind") == "verdict":
            self.verdicts[generation] = entry
        elif entry.get("kind") == "prompt":
            self.admitted.add(generation)
        update = entry.get("update", {})
        if update.get("sessionUpdate") == "agent_message_chunk":
            self._text.setdefault(generation, []).append(update["content"]["text"])
        elif update.get("sessionUpdate") == "tool_call_update":
            for item in update.get("content") or ():
                if item["type"] == "content":
                    self.shown = item["content"]["text"]

    @property
    def is_mid_turn(self) -> bool:
        """Whether a turn was admitted whose verdict was not told yet."""
        return bool(self.admitted - self.verdicts.keys())

    def text(self, generation: int) -> str:
        """What the agent said on one turn."""
        return "".join(self._text.get(generation, []))

    def compare(self, log: "Ledger", *, whole: bool) -> list[str]:
        """What differs from the log; `whole`: all of the log has to be told."""
        wrong = [f"{self.session}: {seq} is not in the log" for seq in self.told.keys() - log.told]
        both = self.told.keys() & log.told
        wrong += [
            f"{self.session}: {seq} differs from the log"
            for seq in sorted(both)
            if self.told[seq] != log.told[seq]
        ]
        if whole:
            missing = sorted(log.told.keys() - self.told.keys())
            wrong += [f"{self.session}: {seq} was never told" for seq in missing]
        return wrong


def streamed(count: int) -> str:
    """What `/stream COUNT` says."""
    return "".join(f"chunk {number}\n" for number in range(1, count + 1))

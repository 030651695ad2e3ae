"""Turn records: a view of the log, one row a turn."""

import msgspec
from msgspec.structs import replace

from moorage_daemon.store.model import BeginBody, Entry, Kind, PromptBody, VerdictBody
from moorage_daemon.store.port import Store
from moorage_protocol.moorage import TurnRecord, Verdict


_KINDS = frozenset({Kind.PROMPT, Kind.BEGIN, Kind.VERDICT})


async def turn_records(store: Store, session: str, *, after: int, limit: int) -> list[TurnRecord]:
    """The records of the first `limit` turns with `generation > after`, in order."""
    records: dict[int, TurnRecord] = {}
    seq, more = 0, True
    while more:
        page = await store.entries(session, seq, kinds=_KINDS)
        for entry in page.entries:
            seq = entry.seq
            if entry.generation is not None and entry.generation > after:
                _fold(records, entry)
        more = page.more
    return [records[generation] for generation in sorted(records)][:limit]


def _fold(records: dict[int, TurnRecord], entry: Entry) -> None:
    generation = entry.generation or 0
    if entry.kind == Kind.PROMPT:
        body = msgspec.json.decode(entry.body, type=PromptBody)
        records[generation] = TurnRecord(
            generation=generation,
            prompt=body.text,
            queued_at=entry.at,
            by=body.by,
            first_seq=entry.seq,
            prompt_id=body.prompt_id,
        )
    elif generation in records:
        records[generation] = _moved_on(records[generation], entry)


def _moved_on(record: TurnRecord, entry: Entry) -> TurnRecord:
    if entry.kind == Kind.BEGIN:
        overrides = msgspec.json.decode(entry.body, type=BeginBody).overrides
        return replace(record, started_at=entry.at, overrides=overrides)
    verdict = msgspec.json.decode(entry.body, type=VerdictBody)
    told = Verdict(**{name: getattr(verdict, name) for name in Verdict.__struct_fields__})
    return replace(record, ended_at=entry.at, last_seq=entry.seq, verdict=told)

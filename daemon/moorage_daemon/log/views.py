"""Costs, tool calls, artifacts and reports: views of the log, a page of rows at a time.

A row whose body is of a newer version is passed over: what it says is not known here, and the
rows around it are as good as before.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import msgspec

from moorage_daemon.store.model import (
    ArtifactBody,
    CostBody,
    Entry,
    Head,
    Kind,
    ResultBody,
    Totals,
    UnreadableBody,
    UploadBody,
    read_body,
)
from moorage_daemon.store.port import Store
from moorage_protocol.views import (
    DEFAULT_WINDOW,
    ArtifactRow,
    Context,
    CostRow,
    ReportRow,
    TraceRow,
    Verification,
)


_OF_BYTES: dict[Kind, type[ArtifactBody] | type[UploadBody]] = {
    Kind.ARTIFACT: ArtifactBody,
    Kind.UPLOAD: UploadBody,
}

PAGE_BYTES = 384 * 2**10  # of entry bodies: their rows stay under 1 MiB

R = TypeVar("R")


class Rows(msgspec.Struct, Generic[R], frozen=True):
    """A page of rows; `next` is the number behind which the next one begins, None at the end."""

    rows: list[R]
    next: int | None


async def cost_rows(store: Store, session: str, *, after: int, limit: int) -> Rows[CostRow]:
    """What the answers of models took."""
    return await _rows(store, session, Kind.COST, row=_cost_row, after=after, limit=limit)


async def report_rows(store: Store, session: str, *, after: int, limit: int) -> Rows[ReportRow]:
    """What was verified."""
    return await _rows(store, session, Kind.REPORT, row=_report_row, after=after, limit=limit)


async def artifact_rows(store: Store, session: str, *, after: int, limit: int) -> Rows[ArtifactRow]:
    """What its turns made, and what it was given."""
    row = partial(_artifact_row, session)
    return await _rows(store, session, *_OF_BYTES, row=row, after=after, limit=limit)


async def artifact_of(store: Store, session: str, seq: int) -> ArtifactRow | None:
    """The bytes of one entry; None if it has none."""
    page = await artifact_rows(store, session, after=seq - 1, limit=1)
    return next((row for row in page.rows if row.seq == seq), None)


async def trace_rows(store: Store, session: str, *, after: int, limit: int) -> Rows[TraceRow]:
    """How tool calls ended."""
    return await _rows(store, session, Kind.RESULT, row=_trace_row, after=after, limit=limit)


async def _rows(
    store: Store,
    session: str,
    *kinds: Kind,
    row: Callable[[Entry], R],
    after: int,
    limit: int,
) -> Rows[R]:
    page = await store.entries(
        session, after, limit=limit, max_bytes=PAGE_BYTES, kinds=frozenset(kinds)
    )
    rows: list[R] = []
    for entry in page.entries:
        try:
            rows.append(row(entry))
        except UnreadableBody:
            continue
    return Rows(rows, page.entries[-1].seq if page.more else None)


def _cost_row(entry: Entry) -> CostRow:
    body = read_body(entry, CostBody)
    return CostRow(
        seq=entry.seq,
        at=entry.at,
        generation=entry.generation,
        provider=body.provider,
        model=body.model,
        tokens=body.tokens,
        micros=body.micros,
        purpose=body.purpose,
    )


def _artifact_row(session: str, entry: Entry) -> ArtifactRow:
    body: ArtifactBody | UploadBody = read_body(entry, _OF_BYTES[Kind(entry.kind)])
    return ArtifactRow(
        kind=entry.kind,
        seq=entry.seq,
        at=entry.at,
        generation=entry.generation,
        uri=address_of(session, entry.seq),
        **{name: getattr(body, name) for name in body.__struct_fields__},
    )


def address_of(session: str, seq: int) -> str:
    """How the artifact of entry `seq` is called."""
    return f"moorage-artifact://{session}/{seq}"


def place_of(address: str) -> tuple[str, int] | None:
    """The session and the entry that an address means; None if it is none."""
    found = _ADDRESS.fullmatch(address)
    return None if found is None else (found[1], int(found[2]))


_ADDRESS = re.compile(r"moorage-artifact://([^/]{1,128})/([1-9][0-9]{0,15})")


def _trace_row(entry: Entry) -> TraceRow:
    body = read_body(entry, ResultBody)
    return TraceRow(
        seq=entry.seq,
        at=entry.at,
        generation=entry.generation,
        **{name: getattr(body, name) for name in body.__struct_fields__},
    )


def _report_row(entry: Entry) -> ReportRow:
    report = read_body(entry, Verification)
    return ReportRow(
        seq=entry.seq,
        at=entry.at,
        generation=entry.generation,
        report=report,
        status=report.status,
    )


def context_of(head: Head) -> Context:
    """How full the context of a session is."""
    totals: Totals = head.totals
    size = totals.window or head.config.max_context_length or DEFAULT_WINDOW
    return Context(used=totals.used, size=size, fraction=totals.used / size, turns=head.generation)

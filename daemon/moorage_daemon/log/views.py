"""Costs, tool calls and reports: views of the log, a page of rows at a time.

A row whose body is of a newer version is passed over: what it says is not known here, and the
rows around it are as good as before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from moorage_daemon.store.model import (
    CostBody,
    Entry,
    Head,
    Kind,
    ResultBody,
    Totals,
    UnreadableBody,
    read_body,
)
from moorage_daemon.store.port import Store
from moorage_protocol.views import (
    DEFAULT_WINDOW,
    Context,
    CostRow,
    ReportRow,
    TraceRow,
    Verification,
)


PAGE_BYTES = 384 * 2**10  # of entry bodies: their rows stay under 1 MiB

R = TypeVar("R")


@dataclass(frozen=True)
class Rows(Generic[R]):
    """A page of rows; `next` is the number behind which the next one begins, None at the end."""

    rows: list[R]
    next: int | None


async def cost_rows(store: Store, session: str, *, after: int, limit: int) -> Rows[CostRow]:
    """What the answers of models took."""
    return await _rows(store, session, Kind.COST, _cost_row, after=after, limit=limit)


async def report_rows(store: Store, session: str, *, after: int, limit: int) -> Rows[ReportRow]:
    """What was verified."""
    return await _rows(store, session, Kind.REPORT, _report_row, after=after, limit=limit)


async def trace_rows(store: Store, session: str, *, after: int, limit: int) -> Rows[TraceRow]:
    """How tool calls ended."""
    return await _rows(store, session, Kind.RESULT, _trace_row, after=after, limit=limit)


async def _rows(
    store: Store,
    session: str,
    kind: Kind,
    row: Callable[[Entry], R],
    *,
    after: int,
    limit: int,
) -> Rows[R]:
    page = await store.entries(
        session, after, limit=limit, max_bytes=PAGE_BYTES, kinds=frozenset({kind})
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
    )


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

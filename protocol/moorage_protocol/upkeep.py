"""What an operator asks of the store: is it well, is it whole, and clean it up."""

from msgspec import UNSET, UnsetType

from moorage_protocol.acp import Shape


class StoreHealthResult(Shape, frozen=True, omit_defaults=False):
    """Whether the store takes every step of durable writing.

    Bytes; `free_bytes` is null where that means nothing. `low`: below `floor_bytes` nothing new
    begins. `damaged` sessions are there and cannot be read.
    """

    name: str
    healthy: bool
    free_bytes: int | None
    floor_bytes: int
    low: bool
    damaged: int


class StoreProblem(Shape, frozen=True, omit_defaults=True):
    """Something that is wrong, and the session that it is about, if it is one."""

    problem: str
    session_id: str | UnsetType = UNSET


class StoreCheckResult(Shape, frozen=True, omit_defaults=False):
    """What was looked at, and what is wrong with it; `more` problems are not listed.

    So many blobs as were `lost` did not come with the sessions that name them: they are no damage.
    Nor is what the `notes` tell of: it was kept for somebody to look at and remove.
    """

    name: str
    sessions: int
    entries: int
    blobs: int
    problems: list[StoreProblem]
    more: int
    lost: int = 0
    notes: list[str] = []


class StoreGcResult(Shape, frozen=True, omit_defaults=False):
    """What was removed: sessions and entries that were kept longer than was wanted, blobs that
    nobody names, and bytes that held nothing."""

    expired_sessions: int
    trimmed_entries: int
    blobs: int
    blob_bytes: int
    freed_bytes: int

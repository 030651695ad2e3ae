"""What a grant refuses, and how little of that is told.

An agent reads one of a few sentences: no id, number, tool name or limit is in any of them, and a
grant of somebody else is answered like one that does not exist. All the rest is in `repr`, for
the operator's log.
"""

from enum import StrEnum

from moorage_protocol.errors import GrantRefused, RpcError, StorageError


class RefusalKind(StrEnum):
    """Why something was refused."""

    NOT_FOUND = "not_found"
    AGENT_MISMATCH = "agent_mismatch"
    CLOSED = "closed"
    EXPIRED = "expired"
    PAUSED = "paused"
    BUDGET = "budget"
    TOOL = "tool"
    RATE = "rate"
    TOO_MANY = "too_many"
    STORAGE = "storage"


TOLD = {kind: kind.value for kind in RefusalKind} | {RefusalKind.AGENT_MISMATCH: "not_found"}


class Refused(Exception):
    """A call, a batch or a grant that is not permitted; nothing of it was charged.

    `detail` is what the operator has to know. It never leaves the daemon. `is_logged` says that the
    operator's log has it.
    """

    def __init__(self, kind: RefusalKind, **detail: object) -> None:
        super().__init__(kind)
        self.kind = kind
        self.detail = detail
        self.is_logged = False

    @property
    def told(self) -> RpcError:
        """The error that a peer gets."""
        if self.kind is RefusalKind.STORAGE:
            return StorageError()
        return GrantRefused(kind=TOLD[self.kind])

    def __str__(self) -> str:
        return self.told.message

    def __repr__(self) -> str:
        fields = "".join(f", {name}={value!r}" for name, value in self.detail.items())
        return f"Refused({self.kind}{fields})"

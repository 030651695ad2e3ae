"""A daemon with a fault in how it charges, for control arms.

    unsound FAULT [OPTION of mooraged...]

`late` records a charge after the call was let go, `refund` gives calls back when the daemon
starts, `apart` looks at the budget before it charges and not when it does, `hasty` answers a
gateway before the charge is durable.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import trio
from msgspec.structs import replace

from moorage_daemon.grants.accounts import Kept
from moorage_daemon.grants.calls import Call
from moorage_daemon.handlers import grants as handlers
from moorage_daemon.handlers.port import Now
from moorage_daemon.ledger import ledger
from moorage_daemon.ledger.holding import Holding, Receipt
from moorage_daemon.ledger.ledger import Ledger, Origin
from moorage_daemon.ledger.records import kept
from moorage_daemon.log.log import Log
from moorage_daemon.program import main as run
from moorage_daemon.store.model import GrantRecord, Head


LATE = 0.2  # seconds between a call and its charge
REFUND = 3  # calls


def late() -> None:
    """What was used is put down a while after the intent."""
    write_head = Holding.write_head

    async def write(holding: Holding) -> None:
        await trio.sleep(LATE)
        write_head(holding)

    def later(holding: Holding) -> None:
        trio.lowlevel.spawn_system_task(write, holding)  # noqa: TID251 - no one waits for it

    Holding.write_head = later  # type: ignore[method-assign,assignment]


def refund() -> None:
    """Calls are taken for cut ones when the daemon starts, and given back."""

    def refunded(head: Head, record: GrantRecord) -> Kept:
        found = kept(head, record)
        spend = found.spend
        return replace(found, spend=replace(spend, calls=max(0, spend.calls - REFUND)))

    ledger.__dict__["kept"] = refunded


def apart() -> None:
    """A tool call was found within the budget when it was shown: that has to do."""
    charge = Ledger.charge

    def unchecked(
        self: Ledger,
        holding: Holding,
        agent: str,
        calls: Sequence[Call],
        origin: Origin | None = None,
    ) -> Receipt:
        account, grant = holding.account, holding.account.grant
        if origin is not None:
            account.grant = replace(grant, budget=replace(grant.budget, calls=None))
        try:
            return charge(self, holding, agent, calls, origin)
        finally:
            account.grant = grant
            account.weigh()
            holding.write_head()

    Ledger.charge = unchecked  # type: ignore[method-assign]


def hasty() -> None:
    """The answer does not wait for the disk."""

    def at_once(log: Log, seq: int, result: Any) -> Now:
        return Now(result)

    handlers.__dict__["AtSeq"] = at_once


FAULTS: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (late, refund, apart, hasty)
}


if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    run(sys.argv[2:])

"""Grants in memory with a clock that the test turns: what the guard's tests share."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from moorage_daemon.grants.account import Account
from moorage_daemon.grants.accounts import Accounts
from moorage_daemon.grants.calls import Call
from moorage_daemon.grants.grant import Grant, make_grant
from moorage_daemon.grants.moments import Moment
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_protocol.grants import Budget


AGENT = "reader"
PRINCIPAL = "local"


def a_grant(**wish: Any) -> Grant:
    """An agent that reads files: five calls, an hour."""
    usual: dict[str, Any] = {
        "agent": AGENT,
        "intent": "read and analyze files",
        "tools": ("read_file", "list_dir"),
        "budget": Budget(calls=5),
        "seconds": 3600.0,
    }
    return make_grant(**{**usual, **wish})


@contextmanager
def refused(kind: RefusalKind) -> Generator[None]:
    """What is done in it is refused, on that ground."""
    with pytest.raises(Refused) as found:
        yield
    assert found.value.kind is kind


@dataclass
class Book:
    """All grants of a test; time passes only when it says so."""

    cap: int = 1000
    boot: str = "one"
    ticks: int = 0
    wall: float = 1_700_000_000.0
    accounts: Accounts = field(init=False)
    _made: int = 0

    def __post_init__(self) -> None:
        self.accounts = Accounts(self.cap)

    @property
    def now(self) -> Moment:
        return Moment(self.boot, self.ticks, self.wall)

    def sleep(self, seconds: float) -> None:
        self.ticks += round(seconds * 1000)
        self.wall += seconds

    def open(self, grant: Grant | None = None, parent: Account | None = None) -> Account:
        self._made += 1
        wish = a_grant() if grant is None else grant
        return self.accounts.open(f"grant-{self._made}", PRINCIPAL, wish, self.now, parent)

    def use(self, account: Account, *tools: str, agent: str | None = None) -> None:
        """Use tools, all of them in one call."""
        self.use_batch(account, tools, agent=agent)

    def use_batch(self, account: Account, tools: Sequence[str], agent: str | None = None) -> None:
        calls = [Call(tool) for tool in tools]
        self.accounts.use(account, agent or account.grant.agent, calls, self.now)

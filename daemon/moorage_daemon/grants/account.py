"""One grant at work: what was used of it, and what it gave on to others.

A child's budget is missing from its parent's from the moment the child exists, and when the child
has ended only what it used is. Both are worked out from the children themselves and stored
nowhere, so there is nothing to settle after a crash and nothing that could be settled twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import Struct

from moorage_daemon.grants.grant import AXES, Amount, Grant, Spend
from moorage_daemon.grants.moments import Moment
from moorage_daemon.grants.rules import Allowlist
from moorage_protocol.grants import Budget, GrantState


NOTHING = Amount()


class Ended(Struct, frozen=True):
    """That a grant has ended, when (seconds since 1970), and the word for why."""

    state: GrantState
    at: float
    cause: str


@dataclass(eq=False, slots=True)
class Account:
    """A grant, its spend, its place in the tree of delegations.

    `principal` is whose it is. `given` is what children hold or have used of it, `weight` what the
    parent counts for this one. It is `paused` while the session it was made for is: see `guard`.
    """

    id: str
    principal: str
    grant: Grant
    spend: Spend
    parent: "Account | None" = None
    revision: int = 1
    ended: Ended | None = None
    paused: bool = False
    children: list["Account"] = field(default_factory=list["Account"])
    given: Amount = NOTHING
    weight: Amount = NOTHING
    allowlist: Allowlist = field(init=False)

    def __post_init__(self) -> None:
        self.allowlist = Allowlist(self.grant.tools)

    # ---- the tree

    def joined(self) -> None:
        """Stand under the parent from here on."""
        if self.parent is not None:
            self.parent.children.append(self)
        self.weigh()

    def leave(self) -> None:
        """Be forgotten; only whole trees are, so no parent is told."""
        if self.parent is not None:
            self.parent.children.remove(self)

    def above(self) -> Iterator["Account"]:
        """The ones that delegated, the nearest first."""
        account = self.parent
        while account is not None:
            yield account
            account = account.parent

    def below(self) -> Iterator["Account"]:
        """All that were delegated to, leaves first."""
        for child in self.children:
            yield from child.below()
            yield child

    def weigh(self) -> None:
        """Tell the parent what to count for this one, and so up to the root."""
        account: Account | None = self
        while account is not None:
            weight = account._weight()
            if weight == account.weight:
                return
            change, account.weight = weight - account.weight, weight
            account = account.parent
            if account is not None:
                account.given += change

    def _weight(self) -> Amount:
        used, budget = self.total + self.spend.held, self.grant.budget
        if self.ended is not None:
            return used
        return Amount(
            max(used.calls, budget.calls or 0),
            max(used.tokens, budget.tokens or 0),
            max(used.micros, budget.micros or 0),
        )

    # ---- what there is

    @property
    def total(self) -> Amount:
        """What was used here and given on."""
        return self.spend.used + self.given

    def free(self, axis: str) -> int | None:
        """What is left on one axis beside what is held, None if there is no limit.

        Below 0 where more was used.
        """
        limit: int | None = getattr(self.grant.budget, axis)
        taken = getattr(self.total, axis) + getattr(self.spend.held, axis)
        return None if limit is None else limit - taken

    def exhausted(self) -> str | None:
        """Of what a model uses, that of which nothing is left; calls are asked for by number."""
        total, budget = self.total, self.grant.budget
        if budget.tokens is not None and total.tokens >= budget.tokens:
            return "tokens"
        if budget.micros is not None and total.micros >= budget.micros:
            return "micros"
        return None

    def milliseconds_left(self, now: Moment) -> int:
        """Of its own time limit; below 0 if it has passed."""
        if self.ended is not None:
            return self.grant.time_limit - self.spend.elapsed
        return self.grant.time_limit - self.spend.elapsed_at(now)

    def state(self, now: Moment) -> GrantState:
        """How it stands; the time counts, not whether anybody has noticed it."""
        if self.ended is not None:
            return self.ended.state
        return GrantState.EXPIRED if self.milliseconds_left(now) < 0 else GrantState.ACTIVE

    # ---- what happens to it

    def take(self, spend: Spend) -> None:
        """The spend is this from here on."""
        self.spend = spend
        self.weigh()

    def end(self, state: GrantState, cause: str, now: Moment) -> None:
        """It permits nothing any more, and gives back what it did not use; the first end stays."""
        if self.ended is None:
            self.spend = self.spend.marked(now)
            self.ended = Ended(state, now.wall, cause)
            self.weigh()

    def change(self, grant: Grant) -> None:
        """A new revision of the grant."""
        self.grant, self.revision = grant, self.revision + 1
        self.allowlist = Allowlist(grant.tools)
        self.weigh()


def remaining(account: Account) -> Budget:
    """What is left of each limited axis, at least 0."""
    left = {axis: account.free(axis) for axis in AXES}
    return Budget(**{axis: None if free is None else max(0, free) for axis, free in left.items()})

"""All grants of the daemon, and what is decided over several of them.

An agent may have so many at once; they are counted and one is added in one step, and one whose
time is over does not count, whether or not anybody has noticed. Ended ones stay readable for a
while, and a tree goes as a whole.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from moorage_daemon.grants.account import Account, Ended
from moorage_daemon.grants.calls import Call
from moorage_daemon.grants.delegation import carved
from moorage_daemon.grants.grant import Grant, Spend, stored_grant
from moorage_daemon.grants.guard import Charge, decide
from moorage_daemon.grants.moments import Moment
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_protocol.grants import GrantState


class Kept(msgspec.Struct, frozen=True):
    """A grant as it was stored."""

    id: str
    principal: str
    grant: Grant
    spend: Spend
    parent: str | None = None
    revision: int = 1
    ended: Ended | None = None


@dataclass(eq=False)
class Accounts:
    """Every grant by its id; `cap` is how many active ones an agent of one principal may have."""

    cap: int
    by_id: dict[str, Account] = field(default_factory=dict[str, Account])

    # ---- finding

    def find(self, grant_id: str) -> Account:
        """The grant of that id; raises `Refused`."""
        account = self.by_id.get(grant_id)
        if account is None:
            raise Refused(RefusalKind.NOT_FOUND, grant=grant_id)
        return account

    def of_agent(self, agent: str, principal: str | None = None) -> list[Account]:
        """All grants of an agent, of one principal or of all."""
        return [
            account
            for account in self.by_id.values()
            if account.grant.agent == agent and principal in (None, account.principal)
        ]

    def active(self, agent: str, principal: str, now: Moment) -> int:
        """How many an agent can use now."""
        found = self.of_agent(agent, principal)
        return sum(account.state(now) is GrantState.ACTIVE for account in found)

    # ---- beginning

    def open(
        self,
        grant_id: str,
        principal: str,
        wish: Grant,
        now: Moment,
        parent: Account | None = None,
    ) -> Account:
        """A new grant, out of the parent's if there is one; raises `Refused`."""
        grant = wish if parent is None else carved(parent, wish, now)
        current = self.active(grant.agent, principal, now)
        if current >= self.cap:
            raise Refused(RefusalKind.TOO_MANY, agent=grant.agent, limit=self.cap, current=current)
        account = Account(grant_id, principal, grant, Spend(at=now), parent)
        self.by_id[grant_id] = account
        account.joined()
        return account

    def restore(self, kept: Iterable[Kept], now: Moment) -> list[Account]:
        """Take up what was stored; gives those that could not go on and were closed.

        A grant whose parent is not there stands on nothing. One whose parent has ended ended with
        it, though the record of that may be missing.
        """
        stored = {each.id: each for each in kept}
        for each in stored.values():
            self._restore(each, stored, now)
        cut: list[Account] = []
        for account in self.by_id.values():
            is_orphan = account.parent is None and bool(account.grant.chain)
            has_ended = any(each.ended for each in account.above())
            if account.ended is None and (is_orphan or has_ended):
                account.end(GrantState.CLOSED, "parent_cancelled", now)
                cut.append(account)
        return cut

    def _restore(self, kept: Kept, stored: dict[str, Kept], now: Moment) -> Account:
        """The account, and before it those above it: the chain has an end, so this has."""
        known = self.by_id.get(kept.id)
        if known is not None:
            return known
        above = stored.get(kept.parent or "")
        is_sound = above is not None and len(above.grant.chain) < len(kept.grant.chain)
        parent = self._restore(above, stored, now) if above is not None and is_sound else None
        known_spend = kept.spend.with_held_used()
        spend = known_spend if kept.ended is not None else known_spend.marked(now)
        account = Account(
            kept.id,
            kept.principal,
            stored_grant(kept.grant),
            spend,
            parent,
            kept.revision,
            kept.ended,
        )
        self.by_id[kept.id] = account
        account.joined()
        return account

    # ---- use

    def use(
        self,
        account: Account,
        agent: str,
        calls: Sequence[Call],
        now: Moment,
        *,
        may_be_paused: bool = False,
    ) -> Charge:
        """Charge calls; raises `Refused`, and then only the refusal is counted."""
        try:
            charge = decide(account, agent, calls, now, may_be_paused=may_be_paused)
        except Refused:
            account.spend = replace(account.spend, refused=account.spend.refused + 1)
            raise
        charge.apply()
        return charge

    # ---- ending

    def close(self, account: Account, cause: str, now: Moment) -> list[Account]:
        """End a grant and all below it, leaves first; gives those that ended by this.

        Raises `Refused` if it has ended already: the first end stays.
        """
        state = account.state(now)
        if state is GrantState.CLOSED:
            raise Refused(RefusalKind.CLOSED, grant=account.id)
        if state is GrantState.EXPIRED:
            raise Refused(RefusalKind.EXPIRED, grant=account.id)
        return self._end(account, GrantState.CLOSED, cause, now)

    def _end(self, account: Account, state: GrantState, cause: str, now: Moment) -> list[Account]:
        ended = [each for each in (*account.below(), account) if each.ended is None]
        for each in ended:
            if each is account:
                each.end(state, cause, now)
            elif each.state(now) is GrantState.EXPIRED:
                each.end(GrantState.EXPIRED, "session_expired", now)
            else:
                each.end(GrantState.CLOSED, "parent_cancelled", now)
        return ended

    def close_for_agent(
        self, agent: str, now: Moment, principal: str | None = None
    ) -> list[Account]:
        """End all grants of an agent that it can use, and all below them."""
        ended: list[Account] = []
        for account in self.of_agent(agent, principal):
            if account.state(now) is GrantState.ACTIVE:
                ended += self._end(account, GrantState.CLOSED, "agent_deactivated", now)
        return ended

    def expire(self, now: Moment) -> list[Account]:
        """Put down that time is over where it is; gives those that ended by this."""
        ended: list[Account] = []
        for account in [*self.by_id.values()]:
            if account.ended is None and account.state(now) is GrantState.EXPIRED:
                ended += self._end(account, GrantState.EXPIRED, "session_expired", now)
        return ended

    # ---- forgetting

    def outdated(self, now: Moment, seconds: float) -> list[Account]:
        """Whole trees that have ended so long ago, leaves first."""
        roots = [account for account in self.by_id.values() if account.parent is None]
        return [
            account
            for root in roots
            if all(_is_outdated(each, now, seconds) for each in _tree(root))
            for account in _tree(root)
        ]

    def forget(self, account: Account) -> None:
        """Drop a grant that is outdated."""
        account.leave()
        self.by_id.pop(account.id, None)


def _tree(root: Account) -> Iterator[Account]:
    yield from root.below()
    yield root


def _is_outdated(account: Account, now: Moment, seconds: float) -> bool:
    return account.ended is not None and now.wall - account.ended.at >= seconds

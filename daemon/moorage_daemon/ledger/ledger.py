"""All grants of the daemon, live: every change is decided at once and recorded in the same tick.

What was refused is told in the operator's log with everything there is to say, and counted; that
count alone is not written at once, but with the next charge, the end of the turn, or within a
minute. So whoever asks for what is refused again and again costs no disk, and a crash loses some of
the count and nothing else. What could not be recorded did not happen: a charge whose commit fails
is given back.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import trio
from msgspec.structs import replace

from moorage_daemon.grants.account import NOTHING, Account
from moorage_daemon.grants.accounts import Accounts
from moorage_daemon.grants.calls import Call
from moorage_daemon.grants.delegation import raised
from moorage_daemon.grants.grant import Amount, Grant
from moorage_daemon.grants.guard import decide, refunded
from moorage_daemon.grants.holds import Hold, Wish, held, hold_for, settled
from moorage_daemon.grants.moments import Moment
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_daemon.identity import new_id
from moorage_daemon.ledger.holding import Held, Holding, Receipt
from moorage_daemon.ledger.records import head_of, kept
from moorage_daemon.log.committer import Committer
from moorage_daemon.log.log import Log
from moorage_daemon.store.model import ChargeBody, EndBody, GrantBody, Head, Kind, Life
from moorage_daemon.store.port import Stored, StoreError
from moorage_protocol.errors import StorageError
from moorage_protocol.grants import Budget, GrantState
from moorage_protocol.moorage import Cause


logger = logging.getLogger(__name__)

LOOK = 60.0  # seconds between looks for grants whose time is over
DAY = 86_400.0


class Origin(msgspec.Struct, frozen=True):
    """What a charge is for: a tool call of a session's turn, or an answer of its model."""

    session: str
    generation: int
    tool_call_id: str | None = None


@dataclass(eq=False)
class Ledger:
    """Every grant by its id. `retention` is how many seconds ended ones stay readable."""

    accounts: Accounts
    committer: Committer
    clock: Callable[[], Moment]
    retention: float = 30 * DAY
    holdings: dict[str, Holding] = field(default_factory=dict[str, Holding])
    _stirred: trio.Event = field(default_factory=trio.Event)
    _more: trio.Event = field(default_factory=trio.Event)

    # ---- finding

    def find(self, grant_id: str) -> Holding:
        """The grant of that id; raises `Refused`."""
        self.accounts.find(grant_id)
        return self.holdings[grant_id]

    def now(self) -> Moment:
        """The moment that decisions are made at."""
        return self.clock()

    # ---- beginning

    def take_up(self, stored: Iterable[Stored]) -> None:
        """Go on where an earlier daemon stopped."""
        found = [(each, each.head.record) for each in stored]
        records = [(each, record) for each, record in found if record is not None]
        paused = {each.head.id for each, _ in found if each.head.life is Life.PAUSED}
        now = self.now()
        cut = self.accounts.restore([kept(each.head, record) for each, record in records], now)
        for each, record in records:
            account = self.accounts.find(each.head.id)
            holding = self._hold(account, each.head, Log(each, self.committer))
            if record.spend.held != NOTHING:
                self._use_up(holding, record.spend.held)
            account.paused = holding.session in paused
        for account in cut:
            self._record_end(self.holdings[account.id], "daemon")
        if records:
            self._stirred.set()

    def _use_up(self, holding: Holding, held: Amount) -> None:
        """Put down that what an earlier daemon held counts as used."""
        holding.write_head()
        body = ChargeBody(
            tokens=held.tokens,
            micros=held.micros,
            held_tokens=-held.tokens,
            held_micros=-held.micros,
        )
        self._append(holding, Kind.CHARGE, body)

    def _hold(self, account: Account, head: Head, log: Log) -> Holding:
        holding = Holding(account, head, log)
        self.holdings[account.id] = holding
        return holding

    def open(
        self,
        principal: str,
        owner: str,
        wish: Grant,
        *,
        parent: Holding | None = None,
        session: str | None = None,
        paused: bool = False,
    ) -> Holding:
        """A new grant; raises `Refused`. It holds when its first entry is durable.

        `paused` says whether the session is that it is made for.
        """
        self._must_be_writable(parent)
        above = parent.account if parent is not None else None
        try:
            account = self.accounts.open(new_id(), principal, wish, self.now(), above)
        except Refused as refusal:
            self.tell(refusal)
            raise
        account.paused = paused
        head = head_of(account, owner=owner, session=session, at=self.committer.now())
        holding = self._hold(account, head, Log(Stored(head, 0), self.committer, is_new=True))
        holding.log.write_head(head)
        first = self._append(holding, Kind.GRANT, GrantBody(account.grant, 1, owner))
        holding.log.when_durable(first, lambda error: self._drop(holding, error))
        self._stirred.set()
        return holding

    def _must_be_writable(self, holding: Holding | None) -> None:
        if self.committer.full or (holding is not None and holding.log.failed):
            raise Refused(RefusalKind.STORAGE, grant=holding.id if holding is not None else None)

    def _drop(self, holding: Holding, error: StorageError | None) -> None:
        """Nobody was told of it: if it should come to be stored after all, it is closed there."""
        if error is not None and holding.account.ended is None:
            self._end(holding, "storage", "daemon")

    def _append(self, holding: Holding, kind: Kind, body: msgspec.Struct) -> int:
        return holding.log.append(kind, body)

    # ---- use

    def charge(
        self, holding: Holding, agent: str, calls: Sequence[Call], origin: Origin | None = None
    ) -> Receipt:
        """Charge calls, all of them or none; raises `Refused`.

        The entry is written in this tick: what else is, is in the same commit.
        """
        self._must_be_writable(holding)
        try:
            charge = self.accounts.use(
                holding.account,
                agent,
                calls,
                self.now(),
                may_be_paused=origin is not None and holding.is_for(origin.session),
            )
        except Refused as refusal:
            self.tell(refusal)
            raise
        for account, _ in charge.spends:
            self.holdings[account.id].write_head()
        if not calls:
            return Receipt(holding, 0, holding.log.durable)
        seq = self._charged(holding, Amount(calls=len(calls)), origin, calls)
        receipt = Receipt(holding, len(calls), seq)
        holding.log.when_durable(seq, lambda error: self._give_back(receipt, error))
        return receipt

    def check(self, holding: Holding, agent: str, calls: Sequence[Call], session: str) -> None:
        """Raise `Refused` for calls of a session that are not permitted now; that is counted."""
        account = holding.account
        try:
            decide(account, agent, calls, self.now(), may_be_paused=holding.is_for(session))
        except Refused as refusal:
            account.spend = replace(account.spend, refused=account.spend.refused + 1)
            self.tell(refusal)
            raise

    def _charged(
        self,
        holding: Holding,
        amount: Amount,
        origin: Origin | None,
        calls: Sequence[Call] = (),
    ) -> int:
        body = ChargeBody(
            calls=amount.calls,
            tokens=amount.tokens,
            micros=amount.micros,
            tools=tuple(call.tool for call in calls),
            session=origin.session if origin is not None else None,
            generation=origin.generation if origin is not None else None,
            tool_call_id=origin.tool_call_id if origin is not None else None,
        )
        return self._append(holding, Kind.CHARGE, body)

    def _give_back(self, receipt: Receipt, error: StorageError | None) -> None:
        if error is not None:
            self.refund(receipt)

    def refund(self, receipt: Receipt, origin: Origin | None = None) -> None:
        """Give calls back that never started; once."""
        calls, receipt.calls = receipt.calls, 0
        if not calls:
            return
        holding = receipt.holding
        holding.account.take(refunded(holding.account.spend, calls))
        holding.write_head()
        self._charged(holding, Amount(calls=-calls), origin)

    def spend(self, holding: Holding, tokens: int, micros: int, origin: Origin) -> None:
        """Note what a model took; that has happened, so nothing of it is refused."""
        account = holding.account
        spend = account.spend if account.ended is not None else account.spend.marked(self.now())
        account.take(replace(spend, tokens=spend.tokens + tokens, micros=spend.micros + micros))
        holding.write_head()
        self._charged(holding, Amount(tokens=tokens, micros=micros), origin)

    def hold(self, holding: Holding, wish: Wish, origin: Origin) -> Held | None:
        """Hold what an answer may take, None where nothing bounds it; raises `Refused`."""
        self._must_be_writable(holding)
        account = holding.account
        hold = hold_for(account, wish)
        if hold is None:
            return None
        account.take(held(account.spend, hold))
        holding.write_head()
        return Held(holding, hold, self._write_hold(holding, hold, Amount(), 1, origin))

    def settle(self, answer: Held, tokens: int, micros: int, origin: Origin) -> None:
        """Put down what an answer took in place of what was held for it; once."""
        if answer.is_settled:
            return
        answer.is_settled = True
        holding, used = answer.holding, Amount(tokens=tokens, micros=micros)
        account = holding.account
        spend = account.spend if account.ended is not None else account.spend.marked(self.now())
        account.take(settled(spend, answer.hold, tokens, micros))
        holding.write_head()
        self._write_hold(holding, answer.hold, used, -1, origin)
        self._tell_of_more()

    async def more(self) -> None:
        """Wait until there may be more to hold: something is held no longer, or was given."""
        await self._more.wait()

    def _tell_of_more(self) -> None:
        event, self._more = self._more, trio.Event()
        event.set()

    def _write_hold(
        self, holding: Holding, hold: Hold, used: Amount, sign: int, origin: Origin
    ) -> int:
        body = ChargeBody(
            tokens=used.tokens,
            micros=used.micros,
            held_tokens=sign * hold.tokens,
            held_micros=sign * hold.micros,
            session=origin.session,
            generation=origin.generation,
        )
        return self._append(holding, Kind.CHARGE, body)

    # ---- changing and ending

    def raise_limits(
        self, holding: Holding, budget: Budget, time_limit: int | None, by: str
    ) -> int:
        """Give more budget or time, as a new revision; gives its entry. Raises `Refused`."""
        self._must_be_writable(holding)
        account = holding.account
        try:
            account.change(raised(account, budget, time_limit, self.now()))
        except Refused as refusal:
            self.tell(refusal)
            raise
        holding.write_head()
        self._tell_of_more()
        logger.warning("a grant was raised", extra={"grant": account.id, "by": by})
        return self._append(holding, Kind.GRANT, GrantBody(account.grant, account.revision, by))

    def pause(self, session_id: str, *, paused: bool) -> None:
        """Let nobody but the session itself use what was made for it, or let them again."""
        for holding in self.holdings.values():
            if holding.is_for(session_id):
                holding.account.paused = paused

    def close(self, holding: Holding, cause: str, by: str) -> int:
        """End a grant and all below it; gives the entry that says so. Raises `Refused`."""
        try:
            ended = self.accounts.close(holding.account, cause, self.now())
        except Refused as refusal:
            self.tell(refusal)
            raise
        self._ended(ended, by)
        return holding.log.seq

    def end(self, holding: Holding, cause: str, by: str) -> None:
        """The same for one that may have ended already: then nothing happens."""
        if holding.account.state(self.now()) is GrantState.ACTIVE:
            self._end(holding, cause, by)

    def end_with(self, session_id: str, cause: str, by: str) -> None:
        """End all that were made for a session, whether or not it stands on them."""
        for holding in [each for each in self.holdings.values() if each.is_for(session_id)]:
            self.end(holding, cause, by)

    def _end(self, holding: Holding, cause: str, by: str) -> None:
        self._ended(self.accounts.close(holding.account, cause, self.now()), by)

    def close_for_agent(self, agent: str, by: str) -> list[Holding]:
        """End all grants of an agent, and all below them; gives those of the agent itself."""
        ended = self.accounts.close_for_agent(agent, self.now())
        self._ended(ended, by)
        logger.warning("an agent was deactivated", extra={"agent": agent, "by": by})
        return [self.holdings[each.id] for each in ended if each.grant.agent == agent]

    def _ended(self, ended: list[Account], by: str) -> None:
        for account in ended:
            holding = self.holdings[account.id]
            self._record_end(holding, by)
            for stander in [*holding.standers]:
                stander.lose_ground(holding.cause)

    def _record_end(self, holding: Holding, by: str) -> None:
        ended = holding.account.ended
        assert ended is not None
        holding.write_head()
        self._append(holding, Kind.END, EndBody(ended.state, ended.cause, by))
        logger.info(
            "a grant has ended", extra={"grant": holding.id, "cause": ended.cause, "by": by}
        )

    def stop_below(self, holding: Holding) -> None:
        """What a grant was for has stopped: so do the turns of all it was delegated to."""
        for account in holding.account.below():
            for stander in [*self.holdings[account.id].standers]:
                stander.lose_ground(Cause.PARENT_CANCELLED)

    # ---- time

    def expire(self) -> None:
        """Put down which grants' time is over."""
        self._ended(self.accounts.expire(self.now()), "daemon")

    def note_refusals(self) -> None:
        """Have written how often what was refused, where that is more than what is."""
        for holding in self.holdings.values():
            holding.note_refusals()

    async def forget(self) -> int:
        """Remove the trees that ended long enough ago; gives how many grants those were.

        Somebody else may be at the same: then each grant counts for one of them.
        """
        removed = 0
        for account in self.accounts.outdated(self.now(), self.retention):
            try:
                await self.committer.delete(account.id)
            except StoreError:
                logger.exception("a grant cannot be removed", extra={"grant": account.id})
                break
            if self.holdings.pop(account.id, None) is not None:
                self.accounts.forget(account)
                removed += 1
        return removed

    async def look_after(self) -> None:
        """Expire and forget, again and again, from the first grant on."""
        await self._stirred.wait()
        while True:
            self.expire()
            self.note_refusals()
            await self.forget()
            await trio.sleep(LOOK)

    # ---- telling

    def tell(self, refusal: Refused) -> None:
        """Let the operator know all there is to know of a refusal, once."""
        if refusal.is_logged:
            return
        refusal.is_logged = True
        logger.warning(
            "a grant does not permit that", extra={"kind": refusal.kind.value, **refusal.detail}
        )

"""What a session stands on: its grant, and below that the rules about tool calls.

Everything is asked of the grant and the rules as they are at that moment, not as they were when
the turn began. A session whose grant is not there, or is not its principal's, may do nothing.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from moorage_daemon.agents.port import ModelCall
from moorage_daemon.grants.account import NOTHING
from moorage_daemon.grants.calls import Call, Shell
from moorage_daemon.grants.guard import must_be_usable
from moorage_daemon.grants.holds import Wish
from moorage_daemon.grants.policy import Policy, Ruling, strictest
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_daemon.grants.rules import BadRule
from moorage_daemon.ledger.holding import Held, Holding, Receipt, Stander
from moorage_daemon.ledger.ledger import Ledger, Origin
from moorage_daemon.store.model import Head
from moorage_protocol.config import PermissionDefault, Permissions
from moorage_protocol.grants import GrantState, Sensitivity
from moorage_protocol.moorage import Cause


logger = logging.getLogger(__name__)

NOTHING_MORE = Policy(Permissions(default=PermissionDefault.DENY))
TICK = 0.001  # seconds: a grant permits calls to the very end of its time, and is over behind it


class Law(msgspec.Struct, frozen=True):
    """What holds for the tool calls of all sessions alike.

    `classify` says how sensitive the result of a call is; `secrets` reads those credentials that
    are configured, by name.
    """

    ledger: Ledger
    policy: Policy
    classify: Callable[[Call, str], Sensitivity]
    secrets: Callable[[Collection[str]], Awaitable[Mapping[str, str]]]


class Tenant(Stander, Protocol):
    """The session that stands here."""

    @property
    def head(self) -> Head:
        """How it is now."""
        ...


class Trouble(msgspec.Struct, frozen=True):
    """Why a turn cannot go on; `axis` is what there is no more of, if that is it."""

    cause: Cause
    axis: str | None = None


@dataclass(eq=False)
class Ground:
    """The grant and the rules of one session."""

    law: Law
    tenant: Tenant
    _permissions: Permissions | None = None
    _policy: Policy | None = None

    # ---- the grant

    @property
    def is_granted(self) -> bool:
        """Whether there is a grant at all that has to permit what is done."""
        return self.tenant.head.grant is not None

    def holding(self) -> Holding | None:
        """The grant, None for a session without; raises `Refused` if it is not there."""
        head = self.tenant.head
        if head.grant is None:
            return None
        holding = self.law.ledger.find(head.grant)
        if holding.account.principal != head.principal:
            raise Refused(RefusalKind.NOT_FOUND, grant=head.grant, session=head.id)
        return holding

    def _found(self) -> Holding | None:
        """The same, None as well if it is not there."""
        try:
            return self.holding()
        except Refused:
            return None

    def check(self, call: Call, credentials: Collection[str] = ()) -> None:
        """Raise `Refused` for a call that is not permitted now; nothing is charged."""
        holding = self.holding()
        if holding is not None:
            self.law.ledger.check(holding, self.tenant.head.agent, [call], self.tenant.id)
        unlisted = sorted(set(credentials) - set(self._credentials()))
        if unlisted:
            refusal = Refused(
                RefusalKind.TOOL, session=self.tenant.id, tool=call.tool, credentials=unlisted
            )
            self.tell(refusal)
            raise refusal

    def filling(self, call: Call, credentials: Collection[str]) -> Call:
        """The call with those of its credentials that are filled in, as the grant lists them."""
        if not credentials or not isinstance(call.subject, Shell):
            return call
        filled = tuple(name for name in self._credentials() if name in credentials)
        return msgspec.structs.replace(call, subject=replace(call.subject, filled=filled))

    def _credentials(self) -> tuple[str, ...]:
        holding = self._found()
        return holding.account.grant.credentials if holding is not None else ()

    def tell(self, refusal: Refused) -> None:
        """Let the operator know of a refusal."""
        self.law.ledger.tell(refusal)

    def charge(self, call: Call, origin: Origin) -> Receipt | None:
        """Charge a call in this tick; raises `Refused`. None where nothing counts calls."""
        holding = self.holding()
        if holding is None:
            return None
        return self.law.ledger.charge(holding, self.tenant.head.agent, [call], origin)

    def must_hold(self) -> None:
        """Raise `Refused` if the grant has ended since a call was charged."""
        holding = self.holding()
        if holding is not None:
            self._must_be_usable(holding)

    def _must_be_usable(self, holding: Holding) -> None:
        head, now = self.tenant.head, self.law.ledger.now()
        own = holding.is_for(head.id)
        must_be_usable(holding.account, head.agent, now, may_be_paused=own)

    def refund(self, receipt: Receipt | None, origin: Origin) -> None:
        """Give a call back that never started."""
        if receipt is not None:
            self.law.ledger.refund(receipt, origin)

    async def hold(self, wish: Wish, origin: Origin) -> Held | None:
        """Hold what an answer may take, None where nothing bounds it; raises `Refused`.

        Where others hold what is missing, it is waited for what they leave.
        """
        holding = self._found()
        if holding is None:
            return None
        while True:
            try:
                return self.law.ledger.hold(holding, wish, origin)
            except Refused as refusal:
                if refusal.kind is not RefusalKind.BUDGET or holding.account.spend.held == NOTHING:
                    raise
            await self.law.ledger.more()

    def settle(self, held: Held, tokens: int, micros: int, origin: Origin) -> None:
        """Put down what an answer took that something was held for."""
        self.law.ledger.settle(held, tokens, micros, origin)

    def spend(self, call: ModelCall, origin: Origin, held: Held | None = None) -> Trouble | None:
        """Note what an answer of a model took; what there is no more of then, if anything.

        It takes the place of what was held for it. An answer whose price nobody knows uses up a
        budget of money: it cannot be kept to.
        """
        holding = self._found()
        if holding is None:
            return None
        tokens = call.tokens.input_tokens + call.tokens.output_tokens
        if held is not None:
            self.settle(held, tokens, call.micros or 0, origin)
        else:
            self.law.ledger.spend(holding, tokens, call.micros or 0, origin)
        if call.micros is None and holding.account.grant.budget.micros is not None:
            logger.warning(
                "a budget of money cannot be kept to: the model has no price",
                extra={"session": self.tenant.id, "grant": holding.id, "model": call.model},
            )
            return Trouble(Cause.BUDGET, "micros")
        return _exhausted(holding)

    def trouble(self) -> Trouble | None:
        """Why no turn can go on here, if that is so."""
        head, now = self.tenant.head, self.law.ledger.now()
        if head.grant is None:
            return None
        holding = self._found()
        if holding is None:
            return Trouble(Cause.SESSION_REMOVED)
        match holding.account.state(now):
            case GrantState.EXPIRED:
                return Trouble(Cause.SESSION_EXPIRED)
            case GrantState.CLOSED:
                return Trouble(holding.cause)
            case GrantState.ACTIVE:
                return _exhausted(holding)

    def must_take_prompts(self) -> None:
        """Raise `Refused` where a turn would end before it began."""
        holding = self.holding()
        if holding is None:
            return
        self._must_be_usable(holding)
        trouble = _exhausted(holding)
        if trouble is not None:
            raise Refused(RefusalKind.BUDGET, grant=holding.id, axis=trouble.axis)

    def note_refusals(self) -> None:
        """Have it written how much was refused so far, if that is more than what is."""
        holding = self._found()
        if holding is not None:
            holding.note_refusals()

    def seconds_left(self) -> float:
        """Until the grant's time is over; infinite without one."""
        holding = self._found()
        if holding is None:
            return float("inf")
        left = holding.account.milliseconds_left(self.law.ledger.now()) / 1000
        return max(left, 0.0) + TICK

    # ---- the rules

    def rule(self, call: Call) -> Ruling:
        """What the rules of the settings and of the session say, as they are now."""
        return strictest((self.law.policy, self._own_policy()), call)

    def _own_policy(self) -> Policy:
        permissions = self.tenant.head.config.permissions
        if self._policy is None or permissions is not self._permissions:
            self._permissions, self._policy = permissions, _readable(permissions)
        return self._policy

    # ---- results

    @property
    def ceiling(self) -> Sensitivity | None:
        """Up to where results may be told; None for all of them."""
        holding = self._found()
        return holding.account.grant.ceiling if holding is not None else None

    def withholds(self, call: Call, text: str) -> bool:
        """Whether that result of that call is above the ceiling."""
        ceiling = self.ceiling
        return ceiling is not None and self.law.classify(call, text).rank > ceiling.rank

    async def secrets(self) -> Mapping[str, str]:
        """The credentials that the grant lists, as far as there are any."""
        listed = self._credentials()
        return await self.law.secrets(listed) if listed else {}

    # ---- the tree

    def stand(self) -> None:
        """Be told when the grant ends."""
        holding = self._found()
        if holding is not None:
            holding.standers.add(self.tenant)

    def leave(self) -> None:
        """Be told no longer."""
        holding = self._found()
        if holding is not None:
            holding.standers.discard(self.tenant)

    def stop_below(self) -> None:
        """The turn that stood here was stopped: so are those it delegated to."""
        holding = self._found()
        if holding is not None and holding.standers <= {self.tenant}:
            self.law.ledger.stop_below(holding)

    def pause(self, *, paused: bool) -> None:
        """The session was paused, or goes on: so does what others may do on its grants."""
        self.law.ledger.pause(self.tenant.id, paused=paused)

    def end(self, cause: Cause, by: str) -> None:
        """The session has ended for good, and with it the grants that were made for it."""
        self.law.ledger.end_with(self.tenant.id, cause, by)


def _exhausted(holding: Holding) -> Trouble | None:
    axis = holding.account.exhausted()
    return Trouble(Cause.BUDGET, axis) if axis is not None else None


def _readable(permissions: Permissions | None) -> Policy:
    """The policy; one that cannot be read, as an earlier version may have kept it, denies all."""
    try:
        return Policy(Permissions(default=None) if permissions is None else permissions)
    except BadRule:
        logger.exception("the rules of a session cannot be read: everything is denied")
        return NOTHING_MORE

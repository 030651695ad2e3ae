"""What an answer of a model may take is held back before it is asked for.

An answer is as long as its model likes, so what bounds it has to be said beforehand. What is asked,
which is known more or less, and the longest answer that is let be given are held from the asking
until it is known what was taken: so of answers that are given at once none counts on what another
may take. What is held is not used. It is in the way of further answers and of grants carved out,
and of nothing else; only after a crash, when nobody knows any more, it counts as used.
"""

import math

from msgspec import Struct
from msgspec.structs import replace

from moorage_daemon.grants.account import NOTHING, Account
from moorage_daemon.grants.grant import Spend
from moorage_daemon.grants.refusals import RefusalKind, Refused


ANSWER = 32_768  # tokens of an answer that are held at most: few models give a longer one
FEW = 1024  # tokens: a shorter answer is hardly one, where a longer one can be had by waiting


class Wish(Struct, frozen=True):
    """An answer to ask for: `asked` is how many tokens it is asked with, more or less.

    They cost `asked_micros` millionths of a US dollar, and each token of the answer `micros_each`;
    None is that nobody knows.
    """

    asked: int
    asked_micros: int | None = None
    micros_each: float | None = None

    def taken(self, answered: int) -> tuple[int, int]:
        """The tokens and micros of an answer of so many tokens."""
        if self.asked_micros is None or self.micros_each is None:
            return self.asked + answered, 0
        return self.asked + answered, math.ceil(self.asked_micros + answered * self.micros_each)


class Hold(Struct, frozen=True):
    """So much is held for an answer of at most `most` tokens."""

    most: int
    tokens: int
    micros: int


def hold_for(account: Account, wish: Wish) -> Hold | None:
    """What is to be held of a grant for an answer; None where nothing bounds it.

    Raises `Refused` where not a token of it fits, or next to none beside what is held for others,
    and where there is a budget of money and nobody knows the price: it could not be kept to.
    """
    tokens, micros = account.free("tokens"), account.free("micros")
    if tokens is None and micros is None:
        return None
    most, axis = ANSWER, "tokens"
    if tokens is not None:
        most = min(most, tokens - wish.asked)
    if micros is not None:
        by_money = _affordable(micros, wish)
        if by_money < most:
            most, axis = by_money, "micros"
    if most < (1 if account.spend.held == NOTHING else FEW):
        raise Refused(
            RefusalKind.BUDGET,
            grant=account.id,
            axis=axis,
            limit=getattr(account.grant.budget, axis),
            used=getattr(account.spend, axis),
            held=getattr(account.spend.held, axis),
            asked=wish.asked,
            is_price_known=wish.micros_each is not None,
        )
    held_tokens, held_micros = wish.taken(most)
    return Hold(
        most,
        held_tokens if tokens is not None else 0,
        min(held_micros, micros) if micros is not None else 0,
    )


def _affordable(micros: int, wish: Wish) -> int:
    """How many tokens of an answer so much pays for."""
    if wish.asked_micros is None or wish.micros_each is None:
        return 0
    left = micros - wish.asked_micros
    if left < 0 or micros == 0:
        return 0
    return ANSWER if wish.micros_each * ANSWER <= left else int(left / wish.micros_each)


def held(spend: Spend, hold: Hold) -> Spend:
    """The spend with that held."""
    return replace(
        spend,
        held_tokens=spend.held_tokens + hold.tokens,
        held_micros=spend.held_micros + hold.micros,
    )


def settled(spend: Spend, hold: Hold, tokens: int, micros: int) -> Spend:
    """The spend with so much used in its place."""
    return replace(
        spend,
        tokens=spend.tokens + tokens,
        micros=spend.micros + micros,
        held_tokens=max(0, spend.held_tokens - hold.tokens),
        held_micros=max(0, spend.held_micros - hold.micros),
    )

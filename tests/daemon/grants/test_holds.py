"""Answers that are given at once never take more together than there is, anywhere in a tree."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, strategies as st

from moorage_daemon.grants.account import Account
from moorage_daemon.grants.accounts import Accounts
from moorage_daemon.grants.grant import Amount
from moorage_daemon.grants.holds import ANSWER, Hold, Wish, held, hold_for, settled
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_protocol.grants import Budget
from tests.daemon.grants.book import Book, a_grant, refused
from tests.daemon.grants.test_delegation import kept


def account_of(book: Book, **budget: int) -> Account:
    return book.open(a_grant(budget=Budget(**budget)))


def begin(account: Account, wish: Wish) -> Hold:
    hold = hold_for(account, wish)
    assert hold is not None
    account.take(held(account.spend, hold))
    return hold


@pytest.fixture
def book() -> Book:
    return Book()


def test_answer_is_as_long_as_what_is_left_beside_the_question(book: Book) -> None:
    hold = hold_for(account_of(book, tokens=1000), Wish(asked=300))

    assert hold == Hold(most=700, tokens=1000, micros=0)


def test_answer_is_as_long_as_money_lasts(book: Book) -> None:
    hold = hold_for(account_of(book, micros=1000), Wish(300, asked_micros=200, micros_each=2.5))

    assert hold == Hold(most=320, tokens=0, micros=1000)


def test_long_answer_is_held_for_up_to_a_bound(book: Book) -> None:
    account = account_of(book, tokens=10**6, micros=10**9)

    assert begin(account, Wish(100, 100, 2.0)) == Hold(ANSWER, ANSWER + 100, 2 * ANSWER + 100)
    assert account.free("tokens") == 10**6 - ANSWER - 100


def test_where_nothing_bounds_an_answer_nothing_is_held(book: Book) -> None:
    assert hold_for(account_of(book, calls=1), Wish(10**9)) is None


def test_answer_that_costs_nothing_is_bounded_by_no_money(book: Book) -> None:
    assert begin(account_of(book, micros=10), Wish(300, 0, 0.0)).most == ANSWER


@pytest.mark.parametrize(
    ("budget", "wish", "axis"),
    [
        ({"tokens": 100}, Wish(100), "tokens"),
        ({"tokens": 0}, Wish(0), "tokens"),
        ({"micros": 100}, Wish(1, 100, 1.0), "micros"),
        ({"micros": 0}, Wish(0, 0, 0.0), "micros"),
        ({"micros": 100}, Wish(1), "micros"),  # nobody knows the price
        ({"tokens": 10**6, "micros": 1}, Wish(1, 1, 1.0), "micros"),
    ],
)
def test_no_answer_is_asked_for_where_not_a_token_is_left(
    book: Book, budget: dict[str, int], wish: Wish, axis: str
) -> None:
    with pytest.raises(Refused) as found:
        hold_for(account_of(book, **budget), wish)

    assert (found.value.kind, found.value.detail["axis"]) == (RefusalKind.BUDGET, axis)


def test_what_is_held_is_not_used_and_not_given_on(book: Book) -> None:
    account = account_of(book, tokens=1000)

    begin(account, Wish(300))

    book.use(account, "read_file")  # calls are permitted all the while
    assert (account.total.tokens, account.free("tokens")) == (0, 0)
    with refused(RefusalKind.BUDGET):
        book.open(a_grant(agent="child", budget=Budget(tokens=1)), account)


def test_answer_that_others_leave_next_to_nothing_waits_for_them(book: Book) -> None:
    account = account_of(book, tokens=ANSWER + 500)
    hold = begin(account, Wish(100))

    with refused(RefusalKind.BUDGET):
        hold_for(account, Wish(100))

    account.take(settled(account.spend, hold, ANSWER + 100, 0))
    assert hold_for(account, Wish(100)) == Hold(most=300, tokens=400, micros=0)


def test_settled_answer_gives_back_what_it_did_not_take(book: Book) -> None:
    account = account_of(book, tokens=1000)
    hold = begin(account, Wish(300))

    account.take(settled(account.spend, hold, 350, 0))

    assert (account.spend.tokens, account.spend.held, account.free("tokens")) == (
        350,
        Amount(),
        650,
    )


def test_longer_answer_than_was_held_for_is_put_down_as_it_was(book: Book) -> None:
    account = account_of(book, tokens=1000)
    hold = begin(account, Wish(300))

    account.take(settled(account.spend, hold, 1200, 0))

    assert (account.spend.tokens, account.free("tokens")) == (1200, -200)


def test_what_an_earlier_daemon_held_counts_as_used(book: Book) -> None:
    account = account_of(book, tokens=1000)
    begin(account, Wish(300))

    again = Accounts(10)
    again.restore([kept(account)], book.now)

    [found] = again.by_id.values()
    assert (found.spend.tokens, found.spend.held) == (1000, Amount())


def test_grant_that_ends_keeps_from_its_parent_what_it_holds(book: Book) -> None:
    parent = account_of(book, tokens=1000)
    child = book.open(a_grant(agent="child", budget=Budget(tokens=400)), parent)
    hold = begin(child, Wish(100))
    book.accounts.close(child, "closed", book.now)
    while_held = parent.free("tokens")

    child.take(settled(child.spend, hold, 150, 0))

    assert (while_held, parent.free("tokens")) == (600, 850)


# ---- many at once

_STEP = st.tuples(st.sampled_from("bbbeo"), st.integers(0, 5), st.integers(1, 400), st.floats(0, 1))


def play(
    steps: list[tuple[str, int, int, float]],
    look: Callable[[Account, Wish], Hold | None],
    note: Callable[[Account, Hold], None],
) -> tuple[int, int]:
    """Answers begin and end, children are made, in any order; the budget, and what was used."""
    book = Book()
    tree = [account_of(book, tokens=2000)]
    given: list[tuple[Account, Hold]] = []
    for what, which, size, part in steps:
        account = tree[which % len(tree)]
        try:
            match what:
                case "b":
                    hold = look(account, Wish(size))
                    assert hold is not None
                    note(account, hold)
                    given.append((account, hold))
                case "e" if given:
                    account, hold = given.pop(which % len(given))
                    account.take(settled(account.spend, hold, round(hold.tokens * part), 0))
                case "o":
                    wish = a_grant(agent=f"child-{len(tree)}", budget=Budget(tokens=size))
                    tree.append(book.open(wish, account))
                case _:
                    pass
        except Refused:
            pass
    for account, hold in given:
        account.take(settled(account.spend, hold, hold.tokens, 0))
    return 2000, sum(account.spend.tokens for account in tree)


@given(st.lists(_STEP, max_size=40))
def test_answers_at_once_never_take_more_than_the_roots_budget(
    steps: list[tuple[str, int, int, float]],
) -> None:
    def note(account: Account, hold: Hold) -> None:
        account.take(held(account.spend, hold))

    budget, taken = play(steps, hold_for, note)

    assert taken <= budget


def test_answers_of_which_nothing_is_held_take_more() -> None:
    """The control: two that only look at what is left."""
    budget, taken = play([("b", 0, 10, 1.0)] * 2, hold_for, lambda _account, _hold: None)

    assert taken > budget


def test_hold_is_stored_with_the_spend(book: Book) -> None:
    account = account_of(book, tokens=1000)
    begin(account, Wish(300))

    assert msgspec.json.decode(msgspec.json.encode(account.spend))["held_tokens"] == 1000

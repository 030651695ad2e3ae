"""What a grant permits: one call, a batch, and in which order the questions are asked.

The numbers are those of the product's founding tests for grants (TG-01 to TG-19).
"""

import math
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from msgspec.structs import replace

from moorage_daemon.grants.accounts import Accounts
from moorage_daemon.grants.calls import Call
from moorage_daemon.grants.grant import BadGrant, Grant, bounded_time, make_grant, stored_grant
from moorage_daemon.grants.guard import decide
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_daemon.grants.report import summary, warnings
from moorage_protocol.grants import Budget, GrantState, RateLimit, Sensitivity
from tests.daemon.grants.book import AGENT, PRINCIPAL, Book, a_grant, refused


@pytest.fixture
def book() -> Book:
    return Book()


def calls(count: int) -> Budget:
    return Budget(calls=count)


# ---- TG-01 to TG-19


def test_tg01_create_and_use_session(book: Book) -> None:
    account = book.open()
    assert (account.spend.calls, account.state(book.now)) == (0, GrantState.ACTIVE)

    book.use(account, "read_file")

    assert account.spend.calls == 1


def test_tg02_budget_enforcement(book: Book) -> None:
    account = book.open(a_grant(budget=calls(2)))
    book.use(account, "read_file")
    book.use(account, "read_file")

    with refused(RefusalKind.BUDGET):
        book.use(account, "read_file")


def test_tg03_tool_whitelist_enforcement(book: Book) -> None:
    account = book.open()
    book.use(account, "read_file")

    with refused(RefusalKind.TOOL):
        book.use(account, "delete_file")


def test_tg04_session_expiry(book: Book) -> None:
    account = book.open(a_grant(seconds=1))
    book.sleep(1.0)
    book.use(account, "read_file")  # to the end of its time, and not longer

    book.sleep(0.1)

    with refused(RefusalKind.EXPIRED):
        book.use(account, "read_file")


def test_tg05_close_and_reuse(book: Book) -> None:
    account = book.open()
    book.accounts.close(account, "closed", book.now)

    with refused(RefusalKind.CLOSED):
        book.use(account, "read_file")


def test_tg06_cleanup_expired_sessions(book: Book) -> None:
    book.open(a_grant(seconds=1))
    book.open(a_grant(seconds=3600))
    book.sleep(1.1)
    book.accounts.expire(book.now)

    outdated = book.accounts.outdated(book.now, seconds=0)

    assert len(outdated) == 1


def test_tg07_session_not_found(book: Book) -> None:
    with refused(RefusalKind.NOT_FOUND):
        book.accounts.find("grant-of-nobody")


def test_tg08_rate_limit_enforcement(book: Book) -> None:
    account = book.open(a_grant(budget=calls(100), rate=RateLimit(calls=3)))
    for _ in range(3):
        book.use(account, "read_file")

    with refused(RefusalKind.RATE):
        book.use(account, "read_file")


def test_tg09_no_rate_limit_when_unset(book: Book) -> None:
    account = book.open(a_grant(budget=calls(100), rate=None))

    for _ in range(10):
        book.use(account, "read_file")

    assert account.spend.calls == 10


def test_tg10_batch_validation_atomicity(book: Book) -> None:
    account = book.open(a_grant(budget=calls(10)))

    with refused(RefusalKind.TOOL):
        book.use(account, "read_file", "delete_file")

    assert account.spend.calls == 0


def test_tg11_batch_budget_enforcement(book: Book) -> None:
    account = book.open(a_grant(budget=calls(3), tools=("read_file",)))

    with refused(RefusalKind.BUDGET):
        book.use(account, *["read_file"] * 4)

    assert account.spend.calls == 0


def test_tg12_batch_rate_limit_enforcement(book: Book) -> None:
    account = book.open(a_grant(budget=calls(100), rate=RateLimit(calls=3)))

    with refused(RefusalKind.RATE):
        book.use(account, *["read_file"] * 4)
    book.sleep(61)
    with refused(RefusalKind.RATE):  # it never fits, however long one waits
        book.use(account, *["read_file"] * 4)

    assert account.spend.calls == 0


def test_tg13_empty_batch_succeeds(book: Book) -> None:
    account = book.open()

    book.use(account)

    assert account.spend.calls == 0


def test_tg14_cleanup_also_removes_closed(book: Book) -> None:
    account = book.open()
    book.accounts.close(account, "closed", book.now)
    assert book.accounts.outdated(book.now, seconds=30 * 86_400) == []

    [outdated] = book.accounts.outdated(book.now, seconds=0)
    book.accounts.forget(outdated)

    with refused(RefusalKind.NOT_FOUND):
        book.accounts.find(account.id)


def test_tg15_zero_budget_session(book: Book) -> None:
    account = book.open(a_grant(budget=calls(0)))

    with refused(RefusalKind.BUDGET):
        book.use(account, "read_file")


def test_tg16_deactivation_closes_agent_sessions(book: Book) -> None:
    mine = [book.open(a_grant(agent="a")) for _ in range(3)]
    other = book.open(a_grant(agent="b"))

    ended = book.accounts.close_for_agent("a", book.now)

    assert len(ended) == 3
    assert {account.state(book.now) for account in mine} == {GrantState.CLOSED}
    assert other.state(book.now) is GrantState.ACTIVE


async def test_tg17_concurrent_budget_enforcement(book: Book) -> None:
    account = book.open(a_grant(budget=calls(5)))
    outcomes: list[RefusalKind | None] = []

    async def use() -> None:
        await trio.lowlevel.checkpoint()
        try:
            book.use(account, "read_file")
            outcomes.append(None)
        except Refused as refusal:
            outcomes.append(refusal.kind)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(use)

    assert outcomes.count(None) == 5
    assert outcomes.count(RefusalKind.BUDGET) == 5


def test_tg18_agent_mismatch_rejected(book: Book) -> None:
    account = book.open()

    with refused(RefusalKind.AGENT_MISMATCH):
        book.use(account, "read_file", agent="attacker")
    book.use(account, "read_file", agent=AGENT)


def test_tg19_batch_agent_mismatch_rejected(book: Book) -> None:
    account = book.open()

    with refused(RefusalKind.AGENT_MISMATCH):
        book.use_batch(account, ["read_file"], agent="attacker")


# ---- the order of the questions


def test_wrong_agent_is_told_nothing_else(book: Book) -> None:
    account = book.open(a_grant(budget=calls(0)))
    book.accounts.close(account, "closed", book.now)

    with refused(RefusalKind.AGENT_MISMATCH):
        book.use(account, "unheard_of", agent="attacker")


def test_closed_comes_before_expired(book: Book) -> None:
    account = book.open(a_grant(seconds=1))
    book.accounts.close(account, "closed", book.now)
    book.sleep(2)

    with refused(RefusalKind.CLOSED):
        book.use(account, "read_file")


def test_expired_comes_before_the_budget(book: Book) -> None:
    account = book.open(a_grant(seconds=1, budget=calls(0)))
    book.sleep(2)

    with refused(RefusalKind.EXPIRED):
        book.use(account, "read_file")


def test_paused_comes_before_the_budget(book: Book) -> None:
    account = book.open(a_grant(budget=calls(0)))
    account.paused = True

    with refused(RefusalKind.PAUSED):
        book.use(account, "read_file")


def test_exhausted_budget_hides_which_tools_are_known(book: Book) -> None:
    account = book.open(a_grant(budget=calls(0)))

    with refused(RefusalKind.BUDGET):
        book.use(account, "delete_file")


def test_tool_comes_before_the_rate(book: Book) -> None:
    account = book.open(a_grant(rate=RateLimit(calls=0)))

    with refused(RefusalKind.TOOL):
        book.use(account, "delete_file")


@pytest.mark.parametrize("axis", ["tokens", "micros"])
def test_budget_of_tokens_and_money_ends_calls_as_well(book: Book, axis: str) -> None:
    account = book.open(a_grant(budget=Budget(**{axis: 10})))
    book.use(account, "read_file")
    account.take(replace(account.spend, **{axis: 10}))

    with refused(RefusalKind.BUDGET):
        book.use(account, "read_file")


# ---- what a refusal leaves behind


def test_refusal_changes_nothing_but_the_count_of_refusals(book: Book) -> None:
    account = book.open(a_grant(budget=calls(3), rate=RateLimit(calls=2)))
    book.use(account, "read_file")
    before = account.spend

    for tools, agent in ((["x"], AGENT), (["read_file"] * 3, AGENT), (["read_file"], "other")):
        with pytest.raises(Refused):
            book.use_batch(account, tools, agent)

    assert replace(account.spend, refused=0) == before
    assert account.spend.refused == 3


def test_decision_alone_changes_nothing(book: Book) -> None:
    account = book.open()
    before = account.spend

    charge = decide(account, AGENT, [Call("read_file")] * 2, book.now)

    assert account.spend is before
    charge.apply()
    assert account.spend.calls == 2


def test_same_tool_twice_in_a_batch_counts_twice(book: Book) -> None:
    account = book.open()

    book.use(account, "read_file", "read_file")

    assert account.spend.calls == 2


def test_empty_batch_passes_where_nothing_is_left(book: Book) -> None:
    account = book.open(a_grant(budget=calls(1), rate=RateLimit(calls=1)))
    book.use(account, "read_file")
    before = account.spend
    book.sleep(61)

    book.use(account)

    assert account.spend is before


def test_empty_batch_of_a_closed_grant_is_refused(book: Book) -> None:
    account = book.open()
    book.accounts.close(account, "closed", book.now)

    with refused(RefusalKind.CLOSED):
        book.use(account)


# ---- tools


def test_any_tool_has_to_be_written(book: Book) -> None:
    everything = book.open(a_grant(tools=None, budget=Budget()))
    nothing = book.open(a_grant(tools=()))

    book.use(everything, "read_file", "anything at all")

    with refused(RefusalKind.TOOL):
        book.use(nothing, "read_file")


@given(known=st.lists(st.from_regex(r"[a-z_]{1,12}", fullmatch=True)), tool=st.text(min_size=1))
def test_tool_is_permitted_if_and_only_if_it_is_listed(known: list[str], tool: str) -> None:
    book = Book()
    account = book.open(a_grant(tools=tuple(known), budget=Budget()))

    for each in known:
        book.use(account, each)

    if tool not in known:
        with pytest.raises(Refused):
            book.use(account, tool)


@given(budget=st.integers(0, 40))
def test_so_many_calls_pass_as_the_budget_says(budget: int) -> None:
    book = Book()
    account = book.open(a_grant(budget=calls(budget)))

    for _ in range(budget):
        book.use(account, "read_file")

    with pytest.raises(Refused):
        book.use(account, "read_file")
    assert account.spend.calls == budget


# ---- time


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        (0, 1000),
        (-5, 1000),
        (0.9, 1000),
        (1.5, 1500),
        (86_400, 86_400_000),
        (315_360_000, 86_400_000),
        (math.inf, 86_400_000),
        (-math.inf, 1000),
    ],
)
def test_time_limit_is_from_one_second_to_a_day(seconds: float, milliseconds: int) -> None:
    assert a_grant(seconds=seconds).time_limit == milliseconds


def test_time_limit_that_is_no_number_is_refused() -> None:
    with pytest.raises(BadGrant, match="timeLimitSeconds"):
        bounded_time(math.nan)


def test_stored_time_limit_has_the_same_bounds() -> None:
    assert stored_grant(replace(a_grant(), time_limit=10**12)).time_limit == 86_400_000
    assert stored_grant(replace(a_grant(), time_limit=0)).time_limit == 1000


def test_time_used_does_not_know_the_clock_on_the_wall(book: Book) -> None:
    account = book.open(a_grant(seconds=3600))

    book.sleep(1800)
    book.wall -= 5 * 3600
    assert account.state(book.now) is GrantState.ACTIVE
    book.wall += 10 * 3600
    assert account.state(book.now) is GrantState.ACTIVE
    book.wall -= 10 * 3600
    book.sleep(1801)

    assert account.state(book.now) is GrantState.EXPIRED


def test_time_goes_on_while_the_daemon_is_down(book: Book) -> None:
    account = book.open(a_grant(seconds=3600))
    book.use(account, "read_file")
    kept = account.spend

    book.sleep(3000)
    book.wall -= 5 * 3600  # which the machine's own counter does not follow

    assert kept.elapsed_at(book.now) == 3_000_000


def test_after_a_reboot_only_the_wall_clock_is_left_and_never_runs_backwards(book: Book) -> None:
    kept = book.open(a_grant(seconds=3600)).spend
    book.boot, book.ticks = "two", 5

    book.wall += 60
    assert kept.elapsed_at(book.now) == 60_000
    book.wall -= 3600

    assert kept.elapsed_at(book.now) == 0


def test_nothing_refills_on_a_jump_of_the_clock(book: Book) -> None:
    account = book.open(a_grant(budget=calls(100), rate=RateLimit(calls=2, per_seconds=60)))
    book.use(account, "read_file", "read_file")

    for step in (3600, -7200, 86_400):
        book.wall += step
        with refused(RefusalKind.RATE):
            book.use(account, "read_file")


# ---- how many at once


def test_cap_is_counted_by_agent_and_principal() -> None:
    book = Book(cap=2)
    book.open(a_grant(agent="a"))
    book.open(a_grant(agent="a"))
    book.open(a_grant(agent="b"))

    with refused(RefusalKind.TOO_MANY):
        book.open(a_grant(agent="a"))
    book.accounts.open("other", "somebody else", a_grant(agent="a"), book.now)


def test_cap_of_nothing_refuses_always() -> None:
    with refused(RefusalKind.TOO_MANY):
        Book(cap=0).open()


def test_expired_ones_do_not_count_though_nobody_noticed() -> None:
    book = Book(cap=10)
    for _ in range(10):
        book.open(a_grant(seconds=1))
    book.sleep(1.1)

    book.open()

    assert book.accounts.active(AGENT, PRINCIPAL, book.now) == 1


def test_limit_of_nothing_is_bounded_under_a_cap_as_well() -> None:
    account = Book(cap=1).open(a_grant(seconds=0))

    assert account.grant.time_limit == 1000


async def test_of_twenty_who_create_at_once_as_many_get_one_as_the_cap_says() -> None:
    book = Book(cap=3)
    outcomes: list[bool] = []

    async def create() -> None:
        await trio.lowlevel.checkpoint()
        try:
            book.open()
            outcomes.append(True)
        except Refused:
            outcomes.append(False)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(create)

    assert outcomes.count(True) == 3


# ---- ending


def test_closing_twice_is_refused_and_the_first_end_stays(book: Book) -> None:
    account = book.open()
    book.accounts.close(account, "closed", book.now)
    first = account.ended
    book.sleep(5)

    with refused(RefusalKind.CLOSED):
        book.accounts.close(account, "again", book.now)

    assert account.ended is first


def test_expired_one_cannot_be_closed_and_stays_expired(book: Book) -> None:
    account = book.open(a_grant(seconds=1))
    book.sleep(2)

    with refused(RefusalKind.EXPIRED):
        book.accounts.close(account, "closed", book.now)
    book.accounts.expire(book.now)

    assert account.state(book.now) is GrantState.EXPIRED


def test_one_agent_never_sees_the_grants_of_another(book: Book) -> None:
    book.open(a_grant(agent="a"))
    other = book.open(a_grant(agent="b"))

    assert book.accounts.of_agent("b") == [other]


def test_time_of_an_ended_one_stands_still(book: Book) -> None:
    account = book.open()
    book.sleep(10)
    book.accounts.close(account, "closed", book.now)
    book.sleep(1000)

    assert summary(account, book.now).seconds == 10.0


# ---- what is told


def test_fifth_that_is_left_is_warned_of(book: Book) -> None:
    account = book.open(a_grant(budget=calls(10), seconds=100))
    book.use(account, *["read_file"] * 7)
    assert warnings(account, book.now) == []

    book.use(account, "read_file")
    assert warnings(account, book.now) == ["calls"]
    book.sleep(80)

    assert warnings(account, book.now) == ["calls", "seconds"]


def test_summary_says_how_it_went(book: Book) -> None:
    account = book.open(a_grant(budget=calls(8)))
    book.use(account, "read_file", "list_dir")
    with pytest.raises(Refused):
        book.use(account, "delete_file")
    book.sleep(12.5)

    told = summary(account, book.now)

    assert (told.calls, told.utilisation, told.seconds, told.refused) == (2, 0.25, 12.5, 1)


# ---- bounds of what can be asked for


@pytest.mark.parametrize(
    "wish",
    [
        {"agent": ""},
        {"agent": "x" * 201},
        {"agent": "a\nb"},
        {"intent": "x" * 513},
        {"tools": ("",)},
        {"tools": ("Bash(*)",)},
        {"tools": tuple(f"tool_{n}" for n in range(257))},
        {"credentials": ("no spaces",)},
        {"credentials": tuple(f"c{n}" for n in range(65))},
        {"depth": -1},
        {"depth": 11},
        {"budget": Budget(calls=-1)},
        {"budget": Budget(tokens=2**53)},
    ],
)
def test_grant_that_cannot_be_is_refused(wish: dict[str, Any]) -> None:
    with pytest.raises(BadGrant):
        a_grant(**wish)


def test_usual_grant_needs_only_an_agent_and_tools() -> None:
    grant = make_grant(agent="a", tools=())

    assert grant == Grant(agent="a", tools=(), time_limit=3_600_000)
    assert grant.ceiling is Sensitivity.INTERNAL
    assert grant.depth == 4


def test_accounts_start_empty() -> None:
    assert Accounts(10).by_id == {}

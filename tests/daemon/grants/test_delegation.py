"""A child's grant is never wider than its parent's, and a tree never uses more than its root."""

import random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from moorage_daemon.grants.account import Account, Ended
from moorage_daemon.grants.accounts import Accounts, Kept
from moorage_daemon.grants.delegation import raised
from moorage_daemon.grants.grant import Amount, Grant, Hop, Spend
from moorage_daemon.grants.guard import refunded
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_protocol.grants import Budget, GrantState, RateLimit, Sensitivity
from tests.daemon.grants.book import AGENT, Book, a_grant, refused


TREES = 1500


@pytest.fixture
def book() -> Book:
    return Book()


def child_of(book: Book, parent: Account, agent: str = "child", **wish: Any) -> Account:
    return book.open(a_grant(agent=agent, **wish), parent)


def kept(account: Account) -> Kept:
    """The account as a store gives it back."""
    grant = msgspec.json.decode(msgspec.json.encode(account.grant), type=Grant)
    spend = msgspec.json.decode(msgspec.json.encode(account.spend), type=Spend)
    parent = account.parent.id if account.parent is not None else None
    return Kept(
        account.id, account.principal, grant, spend, parent, account.revision, account.ended
    )


# ---- never wider


def test_budget_leaves_the_parent_at_once(book: Book) -> None:
    parent = book.open(a_grant(budget=Budget(calls=10)))

    child = child_of(book, parent, budget=Budget(calls=7))

    assert (parent.free("calls"), child.free("calls")) == (3, 7)
    with refused(RefusalKind.BUDGET):
        book.use(parent, *["read_file"] * 4)


def test_unused_part_comes_back_when_the_child_ends(book: Book) -> None:
    parent = book.open(a_grant(budget=Budget(calls=10)))
    child = child_of(book, parent, budget=Budget(calls=7))
    book.use(child, "read_file", "read_file")

    book.accounts.close(child, "closed", book.now)

    assert parent.free("calls") == 8
    assert parent.total == Amount(calls=2)


def test_axis_that_is_not_asked_for_gets_all_that_is_free(book: Book) -> None:
    parent = book.open(a_grant(budget=Budget(calls=10, micros=500)))
    book.use(parent, "read_file")

    child = child_of(book, parent, budget=Budget())

    assert child.grant.budget == Budget(calls=9, micros=500)


def test_child_of_an_unlimited_parent_may_be_limited(book: Book) -> None:
    parent = book.open(a_grant(budget=Budget()))

    child = child_of(book, parent, budget=Budget(calls=3))
    book.use(child, "read_file")

    assert parent.free("calls") is None
    assert parent.given.calls == 3


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        ({"budget": Budget(calls=6)}, RefusalKind.BUDGET),
        ({"tools": ("read_file", "delete_file")}, RefusalKind.TOOL),
        ({"credentials": ("other",)}, RefusalKind.TOOL),
        ({"agent": AGENT}, RefusalKind.TOOL),
    ],
)
def test_wish_for_more_than_the_parent_has_is_refused(
    book: Book, wish: dict[str, Any], kind: RefusalKind
) -> None:
    parent = book.open(a_grant(credentials=("key",)))

    with refused(kind):
        child_of(book, parent, **wish)

    assert parent.children == []


def test_child_has_no_more_than_the_parent_of_anything(book: Book) -> None:
    parent = book.open(
        a_grant(
            tools=("read_file",),
            seconds=100,
            ceiling=Sensitivity.INTERNAL,
            depth=3,
            rate=RateLimit(calls=2, per_seconds=60),
        )
    )
    book.sleep(40)

    child = child_of(
        book, parent, tools=None, seconds=3600, ceiling=Sensitivity.RESTRICTED, depth=9
    ).grant

    assert child.tools == ("read_file",)
    assert child.time_limit == 60_000
    assert child.ceiling is Sensitivity.INTERNAL
    assert child.depth == 2
    assert child.rate == RateLimit(calls=2, per_seconds=60)
    assert child.chain == (Hop(AGENT, parent.id),)


def test_narrower_rule_is_no_wider(book: Book) -> None:
    parent = book.open(a_grant(tools=("Bash(git:*)", "Read", "mcp__files__*")))

    child_of(book, parent, tools=("Bash(git log:*)", "Read(src/**)", "mcp__files__read"))

    for wider in ("Bash", "Bash(gitx:*)", "Bash(g:*)", "mcp__files2__*", "Write"):
        with refused(RefusalKind.TOOL):
            child_of(book, parent, agent="other", tools=(wider,))


def test_nothing_is_delegated_beyond_the_depth(book: Book) -> None:
    parent = book.open(a_grant(depth=1, budget=Budget()))
    child = child_of(book, parent)

    with refused(RefusalKind.TOOL):
        child_of(book, child, agent="grandchild")


def test_agent_delegates_to_none_above_it(book: Book) -> None:
    parent = book.open(a_grant(agent="a", budget=Budget()))
    child = child_of(book, parent, agent="b")

    for agent in ("a", "b"):
        with refused(RefusalKind.TOOL):
            child_of(book, child, agent=agent)


def test_ended_parent_gives_nothing_on(book: Book) -> None:
    parent = book.open(a_grant(seconds=10))
    book.sleep(9.5)

    with refused(RefusalKind.EXPIRED):  # less than a second is left
        child_of(book, parent)


def test_rate_of_the_parent_counts_for_all_below_it(book: Book) -> None:
    parent = book.open(a_grant(budget=Budget(), rate=RateLimit(calls=3)))
    children = [child_of(book, parent, agent=f"c{n}", budget=Budget()) for n in range(3)]
    for child in children:
        book.use(child, "read_file")

    for account in (*children, parent):
        with refused(RefusalKind.RATE):
            book.use(account, "read_file")


# ---- ending


def test_end_of_the_parent_ends_all_below_it_leaves_first(book: Book) -> None:
    root = book.open(a_grant(budget=Budget()))
    child = child_of(book, root, agent="b")
    leaf = child_of(book, child, agent="c")

    ended = book.accounts.close(root, "closed", book.now)

    assert ended == [leaf, child, root]
    assert [account.ended.cause for account in ended if account.ended] == [
        "parent_cancelled",
        "parent_cancelled",
        "closed",
    ]


def test_child_of_an_expired_parent_is_refused_before_anybody_noticed(book: Book) -> None:
    root = book.open(a_grant(seconds=10, budget=Budget()))
    child = child_of(book, root)
    child.grant = replace(child.grant, time_limit=10**6)
    book.sleep(11)

    with refused(RefusalKind.EXPIRED):
        book.use(child, "read_file")


def test_deactivation_of_an_agent_goes_down_the_tree(book: Book) -> None:
    root = book.open(a_grant(agent="a", budget=Budget()))
    child = child_of(book, root, agent="b")
    leaf = child_of(book, child, agent="c")

    ended = book.accounts.close_for_agent("b", book.now)

    assert ended == [leaf, child]
    assert child.ended is not None
    assert child.ended.cause == "agent_deactivated"
    assert root.ended is None


def test_tree_is_forgotten_as_a_whole(book: Book) -> None:
    root = book.open(a_grant(budget=Budget()))
    child = child_of(book, root)
    book.accounts.close(child, "closed", book.now)
    assert book.accounts.outdated(book.now, seconds=0) == []

    book.accounts.close(root, "closed", book.now)

    assert book.accounts.outdated(book.now, seconds=0) == [child, root]


# ---- raising


def test_raise_adds_what_is_named_and_never_takes(book: Book) -> None:
    account = book.open(a_grant(budget=Budget(calls=5), seconds=100))

    account.change(raised(account, Budget(calls=8), 200_000, book.now))
    account.change(raised(account, Budget(calls=2), 1_000, book.now))

    assert (account.grant.budget.calls, account.grant.time_limit) == (8, 200_000)
    assert account.revision == 3


def test_raise_of_a_child_comes_out_of_the_parent(book: Book) -> None:
    parent = book.open(a_grant(budget=Budget(calls=10), seconds=100))
    child = child_of(book, parent, budget=Budget(calls=4), seconds=50)

    child.change(raised(child, Budget(calls=9), 10**9, book.now))

    assert parent.free("calls") == 1
    assert child.grant.time_limit == 100_000
    with refused(RefusalKind.BUDGET):
        raised(child, Budget(calls=11), None, book.now)


# ---- after a restart


def test_tree_comes_back_as_it_was_stored(book: Book) -> None:
    root = book.open(a_grant(budget=Budget(calls=20)))
    child = child_of(book, root, budget=Budget(calls=8))
    leaf = child_of(book, child, agent="c", budget=Budget(calls=4))
    book.use(leaf, "read_file")
    book.accounts.close(leaf, "closed", book.now)

    again = Accounts(10)
    cut = again.restore([kept(each) for each in (leaf, child, root)], book.now)

    assert cut == []
    assert {each.id: (each.spend.calls, each.given) for each in again.by_id.values()} == {
        each.id: (each.spend.calls, each.given) for each in (root, child, leaf)
    }
    assert again.find(root.id).free("calls") == 12


def test_child_whose_end_was_not_recorded_ends_with_its_parent(book: Book) -> None:
    root = book.open(a_grant(budget=Budget(calls=20)))
    child = child_of(book, root, budget=Budget(calls=8))
    book.use(child, "read_file")
    record = replace_ended(kept(root), Ended(GrantState.CLOSED, book.wall, "closed"))

    again = Accounts(10)
    cut = again.restore([kept(child), record], book.now)

    assert [each.id for each in cut] == [child.id]
    assert again.find(root.id).total.calls == 1


def test_child_without_its_parent_stands_on_nothing(book: Book) -> None:
    root = book.open(a_grant(budget=Budget()))
    child = child_of(book, root)

    again = Accounts(10)
    again.restore([kept(child)], book.now)

    assert again.find(child.id).state(book.now) is GrantState.CLOSED


def test_records_that_name_each_other_as_parents_do_not_hang(book: Book) -> None:
    root = book.open(a_grant(budget=Budget()))
    child = child_of(book, root)
    ring = Kept(root.id, root.principal, root.grant, root.spend, parent=child.id)

    again = Accounts(10)
    again.restore([ring, kept(child)], book.now)

    assert len(again.by_id) == 2


@pytest.mark.parametrize("tools", [(), None, ("read_file",)])
def test_tools_survive_storing_as_they_are(book: Book, tools: tuple[str, ...] | None) -> None:
    account = book.open(a_grant(tools=tools))

    again = kept(account).grant

    assert again.tools == tools


def test_stored_grant_without_tools_is_no_grant() -> None:
    with pytest.raises(msgspec.ValidationError, match="tools"):
        msgspec.json.decode(b'{"agent":"a","time_limit":1000}', type=Grant)


def replace_ended(record: Kept, ended: Ended) -> Kept:
    return Kept(record.id, record.principal, record.grant, record.spend, record.parent, 1, ended)


# ---- conservation


class Tree:
    """Random delegations, uses, refunds, ends and restarts; counts what really ran."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.book = Book(cap=10**9)
        self.limit = self.random.randint(0, 60)
        self.root = self.book.open(
            a_grant(agent="0", budget=Budget(calls=self.limit, micros=10**6), depth=4)
        )
        self.ran = 0
        self.agents = 0

    def step(self) -> None:
        account = self.random.choice([*self.book.accounts.by_id.values()])
        try:
            match self.random.randrange(8):
                case 0 | 1:
                    self.delegate(account)
                case 2 | 3 | 4 | 5:
                    self.use(account)
                case 6 if account is not self.root:
                    self.book.accounts.close(account, "closed", self.book.now)
                case 7 if self.random.random() < 0.3:
                    self.restart()
                case _:
                    self.book.sleep(self.random.random())
        except Refused:
            pass

    def delegate(self, account: Account) -> None:
        self.agents += 1
        asked = self.random.choice([None, 0, 1, 5, 30])
        wish = a_grant(agent=str(self.agents), budget=Budget(calls=asked), depth=9)
        self.book.open(wish, account)

    def use(self, account: Account) -> None:
        count = self.random.randint(1, 6)
        self.book.use(account, *["read_file"] * count)
        started = self.random.randint(0, count)
        account.take(refunded(account.spend, count - started))
        self.ran += started

    def restart(self) -> None:
        again = Accounts(10**9)
        records = [kept(each) for each in self.book.accounts.by_id.values()]
        self.random.shuffle(records)
        again.restore(records, self.book.now)
        self.book.accounts = again
        self.root = again.find(self.root.id)

    def check(self) -> None:
        assert self.ran <= self.limit
        assert self.root.total.calls <= self.limit
        for account in self.book.accounts.by_id.values():
            held = sum((each.weight for each in account.children), Amount())
            assert account.given == held
            free = account.free("calls")
            assert free is not None
            assert free >= 0


def test_no_tree_of_delegations_uses_more_than_its_root_may() -> None:
    reached = 0
    for seed in range(TREES):
        tree = Tree(seed)
        for _ in range(40):
            tree.step()
        tree.check()
        reached += tree.ran == tree.limit
    assert reached > 20  # the limit is met, not only avoided


def test_copied_budget_would_have_been_caught() -> None:
    """The control: children whose budget does not leave the parent use more than there is."""
    for seed in range(200):
        tree = Tree(seed)
        for _ in range(40):
            tree.step()
            for account in tree.book.accounts.by_id.values():
                account.given = Amount()
        if tree.ran > tree.limit:
            return
    raise AssertionError("no tree was hard enough")

"""Grants over the wire, as a gateway in front of other agents uses them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from moorage_daemon.grant_settings import GrantSettings
from moorage_daemon.grants.refusals import RefusalKind
from moorage_daemon.identity import Principal
from moorage_daemon.ledger.ledger import LOOK
from moorage_daemon.store.memory import MemoryStore
from moorage_protocol.errors import (
    GrantRefused,
    InvalidParams,
    NotPermitted,
    RpcError,
    StorageError,
)
from moorage_protocol.moorage import Role
from tests.daemon.grants.test_refusals import TEXTS
from tests.daemon.harness import GRACE, Daemon, open_daemon, simulated
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)

SOMEBODY = Principal("somebody", Role.OWNER)
WATCHER = Principal("local", Role.OBSERVER)


@pytest.fixture
async def client(daemon: Daemon) -> Client:
    return await daemon.connect()


@pytest.fixture
async def short_lived() -> AsyncIterator[Daemon]:
    """A daemon on which ended grants are forgotten at once."""
    async with open_daemon(grants=GrantSettings(max_per_agent=3, retention_days=0)) as running:
        yield running


async def ask(client: Client, verb: str, **params: Any) -> Json:
    found: Json = await client.call(f"_moorage/grant/{verb}", params, dict[str, Any])
    return found


async def create(client: Client, **wish: Any) -> str:
    usual: Json = {"agent": "reader", "tools": ["read_file", "list_dir"], "budget": {"calls": 5}}
    created = await ask(client, "create", **(usual | wish))
    return str(created["grantId"])


async def use(client: Client, grant: str, tool: str = "read_file", agent: str = "reader") -> Json:
    return await ask(client, "use", grantId=grant, agent=agent, tool=tool)


Verbs = list[tuple[str, Json]]


async def refusal(client: Client, verb: str, **params: Any) -> RpcError:
    with pytest.raises(RpcError) as found:
        await ask(client, verb, **params)
    return found.value


def raw_error(client: Client) -> Json:
    """The last error, as it came over the wire."""
    errors: list[Json] = [m["error"] for m in client.messages if "error" in m]
    return errors[-1]


# ---- making and using


async def test_grant_answers_with_what_is_left(client: Client) -> None:
    made = await ask(
        client,
        "create",
        agent="reader",
        tools=["read_file"],
        budget={"calls": 5, "micros": 100},
        timeLimitSeconds=60,
    )

    used = await use(client, made["grantId"])

    assert made["state"] == "active"
    assert made["remaining"] == {"calls": 5, "micros": 100, "seconds": 60.0}
    assert made["warnings"] == []
    assert used["remaining"]["calls"] == 4


async def test_batch_is_charged_as_a_whole_or_not_at_all(client: Client) -> None:
    grant = await create(client)

    two = await ask(
        client, "useBatch", grantId=grant, agent="reader", tools=["read_file", "list_dir"]
    )
    error = await refusal(
        client, "useBatch", grantId=grant, agent="reader", tools=["read_file", "delete_file"]
    )

    assert two["remaining"]["calls"] == 3
    assert error.kind == "tool"
    assert (await ask(client, "get", grantId=grant))["used"]["calls"] == 2


async def test_tool_may_be_named_with_what_it_is_about(client: Client) -> None:
    grant = await create(client, tools=["Bash(git:*)"])

    await use(client, grant, "Bash(git log)")

    assert (await refusal(client, "use", grantId=grant, agent="reader", tool="Bash(ls)")).kind == (
        "tool"
    )


async def test_fifth_that_is_left_is_warned_of(client: Client) -> None:
    grant = await create(client)
    warnings = [(await use(client, grant))["warnings"] for _ in range(4)]

    assert warnings == [[], [], [], ["calls"]]


async def test_close_says_how_it_went(client: Client) -> None:
    grant = await create(client)
    await use(client, grant)
    await refusal(client, "use", grantId=grant, agent="reader", tool="delete_file")
    await trio.sleep(2)

    closed = await ask(client, "close", grantId=grant)

    assert closed["summary"] == {"calls": 1, "utilisation": 0.2, "seconds": 2.0, "refused": 1}
    detail = await ask(client, "get", grantId=grant)
    assert (detail["state"], detail["cause"]) == ("closed", "closed")


async def test_raise_is_a_new_revision_on_record(daemon: Daemon, client: Client) -> None:
    grant = await create(client, budget={"calls": 1})
    await use(client, grant)

    raised = await ask(client, "raise", grantId=grant, budget={"calls": 3}, timeLimitSeconds=7200)
    await use(client, grant)

    assert raised["revision"] == 2
    assert raised["remaining"] == {"calls": 2, "seconds": 7200.0}
    kinds = [entry.kind for entry in await daemon.log(grant)]
    assert kinds == ["grant", "charge", "grant", "charge"]


async def test_deactivation_ends_all_grants_of_an_agent_and_below(client: Client) -> None:
    root = await create(client, agent="a", budget={})
    child = await create(client, agent="b", parent=root)
    other = await create(client, agent="c")

    closed = await ask(client, "closeForAgent", agent="a")

    assert closed == {"closed": 1}
    assert (await ask(client, "get", grantId=root))["cause"] == "agent_deactivated"
    assert (await ask(client, "get", grantId=child))["cause"] == "parent_cancelled"
    assert (await ask(client, "get", grantId=other))["state"] == "active"
    assert await ask(client, "closeForAgent", agent="a") == {"closed": 0}


async def test_delegated_budget_comes_out_of_the_parents(client: Client) -> None:
    root = await create(client, agent="a", budget={"calls": 5})
    child = await create(client, agent="b", parent=root, budget={"calls": 3}, tools=None)

    await use(client, child, agent="b")
    await ask(client, "close", grantId=child)

    assert (await ask(client, "get", grantId=child))["tools"] == ["read_file", "list_dir"]
    found = await ask(client, "get", grantId=root)
    assert found["remaining"]["calls"] == 4
    assert found["given"]["calls"] == 1


async def test_list_shows_the_newest_first_and_by_agent(client: Client) -> None:
    made: list[str] = []
    for agent in ("a", "b", "a"):
        made.append(await create(client, agent=agent))
        await trio.sleep(1)

    every, of_a = await ask(client, "list"), await ask(client, "list", agent="a")

    assert [row["grantId"] for row in every["grants"]] == made[::-1]
    assert [row["grantId"] for row in of_a["grants"]] == [made[2], made[0]]


async def test_long_list_comes_in_pages(client: Client) -> None:
    tools = [f"tool_{n}_" + "x" * 70 for n in range(200)]
    made = [await create(client, agent=f"a{n}", tools=tools) for n in range(40)]

    found: list[str] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor is not None:
        page = await ask(client, "list", **({"cursor": cursor} if cursor else {}))
        found += [row["grantId"] for row in page["grants"]]
        cursor = page.get("nextCursor")
        pages += 1

    assert pages > 1
    assert sorted(found) == sorted(made)


# ---- what is refused


@pytest.mark.parametrize(
    "wish",
    [
        {"tools": ["Bash(*)"]},
        {"budget": {"call": 5}},
        {"budget": {"calls": 1.5}},
        {"budget": {"calls": -1}},
        {"budget": {"calls": 2**53}},
        {"rate": {"calls": 1, "perSeconds": 0}},
        {"rate": {"calls": 1, "perSecond": 9}},
        {"timeLimit": 5},
        {"ceiling": "secret"},
        {"intent": "x" * 513},
        {"agent": ""},
        {"depth": 11},
        {"credentials": ["a b"]},
    ],
)
async def test_field_that_is_unknown_or_out_of_bounds_is_refused(
    client: Client, wish: Json
) -> None:
    usual: Json = {"agent": "reader", "tools": []}

    error = await refusal(client, "create", **(usual | wish))

    assert isinstance(error, InvalidParams)


async def test_tools_have_to_be_said(client: Client) -> None:
    error = await refusal(client, "create", agent="reader")

    assert "tools is missing" in str(error)


async def test_list_of_none_is_none_also_after_a_restart(daemon: Daemon, client: Client) -> None:
    none, any_tool = await create(client, tools=[]), await create(client, tools=None)

    async with open_daemon(await daemon.image()) as again:
        after = await again.connect()
        for one in (client, after):
            error = await refusal(one, "use", grantId=none, agent="reader", tool="read_file")
            assert error.kind == "tool"
            await use(one, any_tool)


async def test_te04_all_nine_refusals_tell_exactly_a_word_and_whether_to_try_again() -> None:
    async with open_daemon(grants=GrantSettings(max_per_agent=9)) as daemon:
        client = await daemon.connect()
        spent = await create(client, budget={"calls": 0})
        slow = await create(client, rate={"calls": 0, "perSeconds": 9})
        short = await create(client, timeLimitSeconds=1)
        closed = await create(client)
        await ask(client, "close", grantId=closed)
        fine = await create(client)
        await trio.sleep(1.5)
        paused = await create(client)
        daemon.app.desk.ledger.find(paused).account.paused = True

        found: dict[RefusalKind, Json] = {}
        for kind, grant, agent, tool in [
            (RefusalKind.NOT_FOUND, "a" * 26, "reader", "read_file"),
            (RefusalKind.AGENT_MISMATCH, fine, "attacker", "read_file"),
            (RefusalKind.CLOSED, closed, "reader", "read_file"),
            (RefusalKind.EXPIRED, short, "reader", "read_file"),
            (RefusalKind.PAUSED, paused, "reader", "read_file"),
            (RefusalKind.BUDGET, spent, "reader", "read_file"),
            (RefusalKind.TOOL, fine, "reader", "sekret_tool"),
            (RefusalKind.RATE, slow, "reader", "read_file"),
        ]:
            await refusal(client, "use", grantId=grant, agent=agent, tool=tool)
            found[kind] = raw_error(client)
        for _ in range(10):
            try:
                await create(client, agent="many")
            except GrantRefused:
                found[RefusalKind.TOO_MANY] = raw_error(client)
        daemon.store.fill()
        await refusal(client, "use", grantId=fine, agent="reader", tool="read_file")
        found[RefusalKind.STORAGE] = raw_error(client)

    assert set(found) == set(RefusalKind)
    for kind, error in found.items():
        assert set(error) == {"code", "message", "data"}
        assert set(error["data"]) == {"code", "retryable"}
        assert error["message"] == TEXTS[kind]
        assert "sekret_tool" not in str(error)


async def test_te05_every_refusal_has_its_code(client: Client) -> None:
    """There are no statuses of HTTP: a code, a word and whether to try again stand for them."""
    grant = await create(client, budget={"calls": 0})

    error = await refusal(client, "use", grantId=grant, agent="reader", tool="read_file")

    assert (error.code, error.kind, error.retryable) == (-31006, "budget", False)


@pytest.mark.parametrize("grant", ["", "not-an-id", " ", "a" * 26, "A" * 26])
async def test_te06_what_is_no_id_is_no_grant(client: Client, grant: str) -> None:
    """There are no headers here either: an id is a param, and any other text names nothing."""
    error = await refusal(client, "use", grantId=grant, agent="reader", tool="read_file")

    assert (error.code, error.kind) == (-31006, "not_found")


async def test_te07_charge_that_was_not_written_was_not_made(daemon: Daemon) -> None:
    client = await daemon.connect()
    grant = await create(client)
    reply = client.start(
        "_moorage/grant/use", {"grantId": grant, "agent": "reader", "tool": "read_file"}, Json
    )
    daemon.store.fill()  # before the daemon has read it

    with trio.fail_after(GRACE * 3), pytest.raises(StorageError):
        await reply.result()
    daemon.store.make_room()
    await trio.sleep(1)
    await use(client, grant)

    assert (await ask(client, "get", grantId=grant))["used"]["calls"] == 1


# ---- what is refused again and again


def heads(daemon: Daemon, grant: str) -> int:
    """How often a grant's head was written."""
    return sum(
        change.session == grant and change.head is not None
        for commit in daemon.store.commits
        for change in commit
    )


@pytest.mark.parametrize("is_closed", [True, False])
async def test_refusals_cost_no_disk_and_their_count_is_kept_all_the_same(
    daemon: Daemon, client: Client, *, is_closed: bool
) -> None:
    grant = await create(client)
    if is_closed:
        await ask(client, "close", grantId=grant)
    tried, tool = daemon.store.tried, "read_file" if is_closed else "delete_file"

    for _ in range(200):
        await refusal(client, "use", grantId=grant, agent="reader", tool=tool)

    assert daemon.store.tried == tried
    assert (await ask(client, "get", grantId=grant))["used"]["refused"] == 200
    await trio.sleep(LOOK + 1)
    assert heads(daemon, grant) == (3 if is_closed else 2)
    async with open_daemon(await daemon.image()) as again:
        after = await again.connect()
        assert (await ask(after, "get", grantId=grant))["used"]["refused"] == 200


async def test_next_charge_writes_the_count_as_well(daemon: Daemon, client: Client) -> None:
    grant = await create(client)
    await refusal(client, "use", grantId=grant, agent="reader", tool="delete_file")
    lost = await daemon.image()
    await use(client, grant)
    kept = await daemon.image()

    found: list[tuple[int, int]] = []
    for image in (lost, kept):
        async with open_daemon(image) as again:
            after = (await ask(await again.connect(), "get", grantId=grant))["used"]
            found.append((after["refused"], after["calls"]))

    assert found == [(0, 0), (1, 1)], "a crash loses a count, and never a charge"


async def test_count_is_written_when_the_daemon_stops() -> None:
    store = FaultyStore(MemoryStore())
    async with open_daemon(store) as daemon:
        client = await daemon.connect()
        grant = await create(client)
        await refusal(client, "use", grantId=grant, agent="reader", tool="delete_file")

    async with open_daemon(store) as again:
        after = await again.connect()
        assert (await ask(after, "get", grantId=grant))["used"]["refused"] == 1


# ---- whose it is


async def test_grant_of_another_principal_does_not_exist(daemon: Daemon, client: Client) -> None:
    grant = await create(client)
    other = await daemon.connect(SOMEBODY)

    verbs: Verbs = [
        ("get", {}),
        ("close", {}),
        ("use", {"agent": "reader", "tool": "read_file"}),
        ("useBatch", {"agent": "reader", "tools": []}),
    ]
    for verb, params in verbs:
        foreign = await refusal(other, verb, grantId=grant, **params)
        told = raw_error(other)
        await refusal(other, verb, grantId="b" * 26, **params)
        assert foreign.kind == "not_found"
        assert raw_error(other) == told
    error = await refusal(other, "create", agent="x", tools=[], parent=grant)
    assert error.kind == "not_found"
    assert (await ask(other, "list"))["grants"] == []


async def test_every_refusal_is_in_the_operators_log_once(
    daemon: Daemon, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    grant = await create(client)
    other = await daemon.connect(SOMEBODY)

    await refusal(other, "use", grantId=grant, agent="reader", tool="read_file")
    await refusal(client, "get", grantId="a" * 26)
    await refusal(client, "use", grantId=grant, agent="attacker", tool="read_file")
    with pytest.raises(GrantRefused):
        await client.new(grant={"grantId": grant})

    told = [vars(record) for record in caplog.records if "kind" in vars(record)]
    kinds = [record["kind"] for record in told]
    assert kinds == ["not_found", "not_found", "agent_mismatch", "agent_mismatch"]
    assert told[0]["principal"] == "somebody"


async def test_operator_sees_and_ends_grants_of_everybody(daemon: Daemon, client: Client) -> None:
    other = await daemon.connect(SOMEBODY)
    grant = await create(other)

    await ask(client, "raise", grantId=grant, budget={"calls": 9})
    await ask(client, "close", grantId=grant)

    assert (await ask(other, "get", grantId=grant))["state"] == "closed"


async def test_verbs_of_operators_are_theirs_alone(daemon: Daemon) -> None:
    other = await daemon.connect(SOMEBODY)
    grant = await create(other)

    verbs: Verbs = [
        ("raise", {"grantId": grant, "budget": {"calls": 9}}),
        ("closeForAgent", {"agent": "reader"}),
        ("gc", {}),
    ]
    for verb, params in verbs:
        assert isinstance(await refusal(other, verb, **params), NotPermitted)


async def test_observer_looks_and_does_nothing(daemon: Daemon, client: Client) -> None:
    grant = await create(client)
    watcher = await daemon.connect(WATCHER)

    assert (await ask(watcher, "get", grantId=grant))["state"] == "active"
    verbs: Verbs = [
        ("create", {"agent": "x", "tools": []}),
        ("use", {"grantId": grant, "agent": "reader", "tool": "read_file"}),
        ("close", {"grantId": grant}),
    ]
    for verb, params in verbs:
        assert isinstance(await refusal(watcher, verb, **params), NotPermitted)


async def test_cap_holds_for_each_agent_and_forgets_expired_ones(short_lived: Daemon) -> None:
    client = await short_lived.connect()
    for _ in range(3):
        await create(client, timeLimitSeconds=1)

    error = await refusal(client, "create", agent="reader", tools=[])
    assert (error.kind, error.retryable) == ("too_many", True)
    await create(client, agent="another")
    await trio.sleep(1.1)

    await create(client)


async def test_of_twenty_who_create_at_once_as_many_get_one_as_the_cap_says(
    short_lived: Daemon,
) -> None:
    client = await short_lived.connect()
    replies = [
        client.start("_moorage/grant/create", {"agent": "x", "tools": []}, Json) for _ in range(20)
    ]

    outcomes: list[bool] = []
    for reply in replies:
        try:
            await reply.result()
            outcomes.append(True)
        except GrantRefused:
            outcomes.append(False)

    assert outcomes.count(True) == 3


# ---- time, restarts and forgetting


async def test_use_and_time_survive_a_restart(daemon: Daemon, client: Client) -> None:
    grant = await create(client, timeLimitSeconds=100, rate={"calls": 2, "perSeconds": 60})
    await use(client, grant)
    await trio.sleep(30)
    await use(client, grant)
    image = await daemon.image()
    await trio.sleep(25)

    async with open_daemon(image) as again:
        after = await again.connect()
        error = await refusal(after, "use", grantId=grant, agent="reader", tool="read_file")
        found = await ask(after, "get", grantId=grant)

    assert error.kind == "rate"  # both calls are within the last minute
    assert found["used"]["calls"] == 2
    assert found["used"]["seconds"] == pytest.approx(55.0)


async def test_delegation_survives_a_restart(daemon: Daemon, client: Client) -> None:
    root = await create(client, agent="a", budget={"calls": 9})
    child = await create(client, agent="b", parent=root, budget={"calls": 4})
    await use(client, child, agent="b")

    async with open_daemon(await daemon.image()) as again:
        after = await again.connect()
        await ask(after, "close", grantId=root)
        found = await ask(after, "get", grantId=child)

    assert (found["state"], found["cause"]) == ("closed", "parent_cancelled")


async def test_expired_grant_is_put_down_as_such(daemon: Daemon, client: Client) -> None:
    grant = await create(client, timeLimitSeconds=5)

    await trio.sleep(70)

    assert [entry.kind for entry in await daemon.log(grant)] == ["grant", "end"]
    assert (await ask(client, "get", grantId=grant))["cause"] == "session_expired"


async def test_ended_grant_stays_readable_for_as_long_as_the_settings_say() -> None:
    async with open_daemon(grants=GrantSettings(retention_days=2)) as daemon:
        client = await daemon.connect()
        grant = await create(client)
        await ask(client, "close", grantId=grant)

        await trio.sleep(1.9 * 86_400)
        assert (await ask(client, "get", grantId=grant))["state"] == "closed"
        await trio.sleep(0.2 * 86_400)

        assert (await refusal(client, "get", grantId=grant)).kind == "not_found"
        assert await daemon.log(grant) == []


async def test_gc_removes_what_has_ended(short_lived: Daemon) -> None:
    client = await short_lived.connect()
    await create(client)
    await create(client, timeLimitSeconds=1)
    closed = await create(client, agent="x")
    await ask(client, "close", grantId=closed)
    await trio.sleep(1.1)

    assert await ask(client, "gc") == {"removed": 2}
    assert len((await ask(client, "list"))["grants"]) == 1


async def test_gc_twice_at_once_removes_each_grant_once(short_lived: Daemon) -> None:
    client = await short_lived.connect()
    root = await create(client)
    await create(client, agent="x", parent=root)
    await ask(client, "close", grantId=root)
    removed: list[int] = []

    async def gc() -> None:
        other = await short_lived.connect()
        removed.append((await ask(other, "gc"))["removed"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(gc)
        nursery.start_soon(gc)

    assert sum(removed) == 2
    assert (await ask(client, "list"))["grants"] == []


async def test_grants_are_no_sessions(client: Client) -> None:
    grant = await create(client)

    assert await client.listed() == []
    with pytest.raises(RpcError):
        await client.attach(grant)

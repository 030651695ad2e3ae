"""Who is there: TUIs that prove themselves, principals that see their own, roles that may less."""

import pytest
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.identity import (
    Principal,
    TuiKeys,
    Verb,
    authorize,
    granted,
    is_id,
    new_id,
)
from moorage_protocol.errors import InvalidRequest, NotFound, NotPermitted
from moorage_protocol.moorage import Access, LiveResult, Role
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever
from tests.daemon.twin import Client


pytestmark = pytest.mark.trio(run=simulated)

CI = Principal("ci", Role.OWNER)
AUDITOR = Principal("local", Role.OBSERVER)
OTHER_OPERATOR = Principal("admin", Role.OPERATOR)


# ---- initialize


async def test_nothing_is_served_before_initialize(daemon: Daemon) -> None:
    client = daemon.dial()

    for method in ("session/new", "session/list", "_moorage/status", "no/such/method"):
        with pytest.raises(InvalidRequest):
            await client.call(method, {"cwd": "/"}, dict[str, object])

    await client.initialize({})
    assert client.tui


async def test_behaviour_23_a_second_initialize_is_refused_and_changes_nothing(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect()
    tui, secret = client.tui, client.secret

    with pytest.raises(InvalidRequest):
        await client.initialize({"tuiId": other.tui, "tuiSecret": other.secret})

    session = await client.new()
    assert daemon.session(session).head.owner == tui
    assert secret is not None


async def test_a_newer_protocol_version_is_answered_with_ours(daemon: Daemon) -> None:
    client = daemon.dial()

    answer = await client.call("initialize", {"protocolVersion": 7}, dict[str, object])

    assert answer["protocolVersion"] == 1
    assert "_meta" not in answer, "a plain client is not told of moorage"


# ---- TUIs


async def test_a_client_that_proves_no_tui_gets_a_fresh_one_with_its_secret(
    daemon: Daemon,
) -> None:
    clients = [await daemon.connect() for _ in range(3)]

    assert len({client.tui for client in clients}) == 3
    assert all(client.secret for client in clients)
    assert all(is_id(client.tui) for client in clients)


async def test_a_tui_comes_back_with_its_secret_and_owns_its_sessions_again(
    daemon: Daemon, client: Client
) -> None:
    """Also over a restart with the same key; the secret is told once."""
    session = await client.new()
    client.leave()
    hello = {"tuiId": client.tui, "tuiSecret": client.secret}

    async with open_daemon(await daemon.image()) as restarted:
        for host in (daemon, restarted):
            again = await host.connect(hello=hello)
            assert again.tui == client.tui
            assert again.secret is None
            row = next(row for row in (await all_rows(again)).sessions)
            assert (row.session_id, row.owner) == (session, client.tui)


async def all_rows(client: Client) -> LiveResult:
    """All live sessions; those that are parked are made live first."""
    for session in await client.listed():
        await client.attach(session)
    return await client.live()


@pytest.mark.parametrize("secret", [None, "", "wrong", "x" * 43])
async def test_behaviour_22_a_bare_or_wrong_claim_is_refused(
    daemon: Daemon, client: Client, secret: str | None
) -> None:
    hello = {"tuiId": client.tui} if secret is None else {"tuiId": client.tui, "tuiSecret": secret}

    with pytest.raises(NotPermitted):
        await daemon.connect(hello=hello)


async def test_a_secret_proves_its_own_tui_and_no_other(daemon: Daemon, client: Client) -> None:
    other = await daemon.connect()

    with pytest.raises(NotPermitted):
        await daemon.connect(hello={"tuiId": client.tui, "tuiSecret": other.secret})


async def test_a_refused_client_may_try_again(daemon: Daemon, client: Client) -> None:
    dialling = daemon.dial()

    with pytest.raises(NotPermitted):
        await dialling.initialize({"tuiId": client.tui, "tuiSecret": "wrong"})

    await dialling.initialize({})
    assert dialling.tui != client.tui


async def test_behaviour_20_a_tui_stays_when_its_older_connection_goes(
    daemon: Daemon, client: Client
) -> None:
    again = await daemon.connect(hello={"tuiId": client.tui, "tuiSecret": client.secret})
    session = await again.new()

    client.leave()
    await wait_all_tasks_blocked()

    rows = await again.call("_moorage/tui/list", {}, dict[str, list[dict[str, object]]])
    [row] = rows["tuis"]
    assert (row["tuiId"], row["connected"], row["sessions"]) == (again.tui, 1, 1)
    assert daemon.session(session).head.owner == again.tui


# ---- principals and roles


async def test_behaviour_21_a_session_of_another_principal_is_not_there(
    daemon: Daemon, client: Client
) -> None:
    stranger = await daemon.connect(CI)
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    before = daemon.session(session).log.seq

    for refused in (
        stranger.prompt(session).result,
        lambda: stranger.cancel(session),
        lambda: stranger.close(session),
        lambda: stranger.configure(session, model="m"),
        lambda: stranger.attach(session),
        lambda: stranger.load(session),
        lambda: stranger.resume(session),
        lambda: stranger.entries(session),
        lambda: stranger.turns(session),
        lambda: stranger.withdraw(session, 1),
    ):
        with pytest.raises(NotFound):
            await refused()
    assert not (await stranger.kill(session)).killed
    await stranger.delete(session)

    assert await stranger.listed() == []
    assert (await stranger.live()).sessions == []
    assert not performance.was_cancelled
    assert daemon.session(session).log.seq == before
    assert await client.listed() == [session]


async def test_a_principal_acts_on_its_own_sessions(daemon: Daemon) -> None:
    client = await daemon.connect(CI)
    session = await client.new()
    reply = client.prompt(session)
    (await daemon.puppet.next()).finish()

    await reply.result()

    assert daemon.session(session).head.principal == "ci"
    assert (await client.kill(session)).killed


async def test_an_operator_watches_and_kills_the_sessions_of_others_and_does_no_more(
    daemon: Daemon,
) -> None:
    owner, operator = await daemon.connect(CI), await daemon.connect(OTHER_OPERATOR)
    session = await owner.new()
    owner.prompt(session)
    lever = Lever(asks=True)
    (await daemon.puppet.next()).begin(lever.call())
    question = await owner.question()

    snapshot = await operator.attach(session, afterSeq=0)

    assert snapshot.access is Access.OBSERVER
    await operator.until(lambda: "ask" in operator.kinds(session))
    assert operator.questions == []
    with pytest.raises(NotPermitted):
        await operator.respond(session, question.call)
    with pytest.raises(NotPermitted):
        await operator.prompt(session).result()
    everything = {"all": True}
    rows = await operator.call("_moorage/session/live", everything, LiveResult)
    assert [row.session_id for row in rows.sessions] == [session]
    assert (await operator.live()).sessions == []
    assert (await operator.kill(session)).killed
    assert lever.pulled == []


async def test_damaged_sessions_are_told_to_operators_alone(daemon: Daemon) -> None:
    stranger, operator = await daemon.connect(CI), await daemon.connect(OTHER_OPERATOR)
    daemon.sessions.damaged["lost"] = "its journal is damaged"

    [told] = (await operator.live()).damaged

    assert (told.session_id, told.problem) == ("lost", "its journal is damaged")
    assert (await stranger.live()).damaged == []
    await stranger.delete("lost")
    assert [row.session_id for row in (await operator.live()).damaged] == ["lost"]


async def test_all_rows_are_for_operators(daemon: Daemon, client: Client) -> None:
    await client.new()
    stranger = await daemon.connect(CI)

    with pytest.raises(NotPermitted):
        await stranger.call("_moorage/session/live", {"all": True}, LiveResult)


async def test_a_principal_that_observes_watches_and_does_no_more(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    auditor = await daemon.connect(AUDITOR)

    snapshot = await auditor.attach(session, access="controller", afterSeq=0)

    assert snapshot.access is Access.OBSERVER
    client.prompt(session)
    (await daemon.puppet.next()).begin(Lever(asks=True).call())
    question = await client.question()
    await auditor.until(lambda: "ask" in auditor.kinds(session))
    assert auditor.questions == []
    assert await auditor.listed() == [session]
    assert len(await auditor.turns(session)) == 1
    for refused in (
        auditor.prompt(session).result,
        auditor.new,
        lambda: auditor.cancel(session),
        lambda: auditor.kill(session),
        lambda: auditor.respond(session, question.call),
        lambda: auditor.load(session),
    ):
        with pytest.raises(NotPermitted):
            await refused()


@pytest.mark.parametrize(
    ("principal", "access", "acts", "kills"),
    [
        (Principal("local", Role.OPERATOR), None, True, True),
        (Principal("local", Role.OPERATOR), Access.OBSERVER, False, True),
        (Principal("local", Role.OWNER), None, True, True),
        (Principal("local", Role.OWNER), Access.OBSERVER, False, False),
        (Principal("local", Role.OBSERVER), None, False, False),
        (Principal("local", Role.OBSERVER), Access.CONTROLLER, False, False),
        (Principal("admin", Role.OPERATOR), None, False, True),
    ],
)
async def test_who_may_do_what_with_a_session_of_local(
    principal: Principal, access: Access | None, acts: bool, kills: bool
) -> None:
    authorize(principal, "local", Verb.WATCH, access)
    for verb, allowed in ((Verb.ACT, acts), (Verb.PAUSE, kills), (Verb.KILL, kills)):
        if allowed:
            authorize(principal, "local", verb, access)
        else:
            with pytest.raises(NotPermitted):
                authorize(principal, "local", verb, access)
    assert (granted(principal, "local", access) is Access.CONTROLLER) is acts


async def test_others_find_nothing_whatever_the_verb() -> None:
    for role in (Role.OWNER, Role.OBSERVER):
        for verb in Verb:
            with pytest.raises(NotFound):
                authorize(Principal("ci", role), "local", verb)


async def test_ids_are_random_and_secrets_depend_on_the_key() -> None:
    assert len({new_id() for _ in range(100)}) == 100
    assert all(is_id(new_id()) for _ in range(100))
    assert not is_id("../../etc/passwd")
    tui, secret = TuiKeys(b"a" * 32).issue()
    TuiKeys(b"a" * 32).prove(tui, secret)
    with pytest.raises(NotPermitted):
        TuiKeys(b"b" * 32).prove(tui, secret)
    with pytest.raises(NotPermitted):
        TuiKeys(b"a" * 32).prove("..", TuiKeys(b"a" * 32).secret(".."))
    assert secret not in repr(TuiKeys(b"a" * 32))

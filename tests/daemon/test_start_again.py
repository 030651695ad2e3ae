"""What may start is read again in the tick of the start, wherever before it changed.

Each change is made at every tick between an agent's call and the start of its tool. Whether it
was made before the start or behind it, the call and its price agree with that.
"""

from collections.abc import AsyncIterator, Callable

import pytest
import trio
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.grant_settings import GrantSettings
from moorage_daemon.grants.calls import Call
from moorage_daemon.grants.policy import Ruling
from moorage_daemon.session import Session
from moorage_daemon.store.model import Life
from moorage_daemon.tools.port import Bench, Report
from moorage_daemon.turn.ground import Ground
from moorage_protocol.acp import ToolKind
from moorage_protocol.config import PermissionDefault, Permissions
from moorage_protocol.moorage import Posture
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever, LeverArguments
from tests.daemon.test_ground import allow_always, standing, turn, used
from tests.daemon.twin import Client


pytestmark = pytest.mark.trio(run=simulated)

TICKS = 15  # more than a call takes to start
Change = Callable[[Session], None]


def rules(
    *,
    allow: tuple[str, ...] = (),
    ask: tuple[str, ...] = (),
    deny: tuple[str, ...] = (),
    default: PermissionDefault | None = None,
) -> Change:
    """The session's rules become these."""
    found = Permissions(allow=allow, ask=ask, deny=deny, default=default)

    def change(live: Session) -> None:
        live.record.head = replace(live.head, config=replace(live.head.config, permissions=found))

    return change


def posture(wanted: Posture) -> Change:
    """Its mode becomes that."""

    def change(live: Session) -> None:
        live.record.head = replace(live.head, posture=wanted)

    return change


def killed(live: Session) -> None:
    live.record.head = replace(live.head, life=Life.KILLED)


CHANGES = {
    "an asking rule": (rules(allow=("Lever",)), rules(ask=("Lever",), allow=("Lever",))),
    "an asking rule beside always": (rules(), rules(ask=("Lever",))),
    "a denying rule": (rules(allow=("Lever",)), rules(deny=("Lever",), allow=("Lever",))),
    "no allowing rule": (rules(allow=("Lever",)), rules()),
    "an asking default": (rules(allow=("Lever",)), rules(default=PermissionDefault.ASK)),
    "a narrower mode": (posture(Posture.AUTO_EDIT), posture(Posture.ASK)),
    "no mode for it": (posture(Posture.AUTO_EDIT), posture(Posture.READ_ONLY)),
    "a kill": (rules(allow=("Lever",)), killed),
}


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with open_daemon(grants=GrantSettings(max_per_agent=TICKS)) as running:
        yield running


class Witness(Lever):
    """A lever that says whether it was pulled behind the change."""

    def __init__(self) -> None:
        super().__init__(asks=True, kind=ToolKind.EDIT, paths=("/work/a",))
        self.is_changed = False
        self.seen: list[bool] = []

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        self.seen.append(self.is_changed)
        return await super().run(arguments, bench)


class Stale(Ground):
    """Rules that are read once: what a stage must not do."""

    first: Ruling | None = None

    def rule(self, call: Call) -> Ruling:
        self.first = self.first or super().rule(call)
        return self.first


async def started(
    daemon: Daemon, client: Client, change: str, ticks: int, ground: type[Ground] = Ground
) -> list[bool]:
    """Whether the call was started, and if so behind the change; what it cost is checked."""
    before, after = CHANGES[change]
    lever = Witness()
    session, grant = await standing(daemon, client, tools=None)
    if "always" in change:
        await allow_always(daemon, client, session, lever)
    live = daemon.session(session)
    live.ground = ground(live.ground.law, live)
    before(live)
    pull = await turn(daemon, client, session)
    paid = (await used(client, grant))["calls"]
    pulled = len(lever.seen)

    pull.start(lever)
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    after(live)
    lever.is_changed = True
    await wait_all_tasks_blocked()

    found = lever.seen[pulled:]
    if live.may_start:
        if live.asks.open:  # the change came before the decision
            client.choose(client.questions[-1], "reject")
        await pull.end()
        assert (await used(client, grant))["calls"] - paid == len(found)
    return found


@pytest.mark.parametrize("change", CHANGES)
async def test_change_at_any_tick_before_the_start_counts(
    daemon: Daemon, client: Client, change: str
) -> None:
    found = [await started(daemon, client, change, ticks) for ticks in range(TICKS)]

    assert [True] not in found, "started though it was changed before"
    assert found[0] == []
    assert found[-1] == [False], "more ticks, or the last change came too early as well"


@pytest.mark.parametrize("change", ["an asking rule", "a denying rule", "no allowing rule"])
async def test_rules_that_are_not_read_again_are_found_out(
    daemon: Daemon, client: Client, change: str
) -> None:
    """The control."""
    found = [await started(daemon, client, change, ticks, Stale) for ticks in range(TICKS)]

    assert [True] in found

"""The core as it is in life, on a store in memory, with clients in memory and a puppet as agent."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
import trio.testing

from moorage_daemon.agents.port import Agent
from moorage_daemon.app import OWNER, App, open_core
from moorage_daemon.grants.moments import Moment
from moorage_daemon.identity import Principal
from moorage_daemon.provider_settings import ProviderKind, ProviderSettings
from moorage_daemon.session import Session
from moorage_daemon.sessions import DRAIN_SLACK, Sessions
from moorage_daemon.settings import Settings
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.model import Entry
from moorage_daemon.store.port import Change, Store
from tests.daemon.puppet import Puppet
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.store.samples import all_entries
from tests.daemon.twin import Client, Json, Wire, memory_pair


GRACE = 2.0  # seconds; less than a test's patience
EPOCH = 1_000_000_000.0  # seconds since 1970 at which the tests' clock starts
KEY = b"k" * 32
PROVIDER = ProviderSettings(ProviderKind.OPENAI, "http://127.0.0.1:9", "small", ("large",))


@dataclass(eq=False)
class Daemon:
    """A running core. `store` can be told to fail; `abandoned` says that an agent was left."""

    app: App
    store: FaultyStore
    puppet: Puppet
    clients: trio.Nursery
    abandoned: list[float] = field(default_factory=list[float])

    @property
    def sessions(self) -> Sessions:
        return self.app.desk.sessions

    def session(self, session: str) -> Session:
        """The live object."""
        return self.sessions.live[session]

    async def connect(
        self,
        principal: Principal = OWNER,
        *,
        hello: Json | None = None,
        plain: bool = False,
        capabilities: Json | None = None,
    ) -> Client:
        """A client that has initialized; `plain` ones say nothing of moorage."""
        client = self.dial(principal)
        await client.initialize(None if plain else hello or {}, capabilities)
        return client

    def dial(self, principal: Principal = OWNER) -> Client:
        """A client that has not said anything yet."""
        client = Client(self.wire(principal))
        self.clients.start_soon(client.run)
        return client

    def wire(self, principal: Principal = OWNER) -> Wire:
        """The client's end of a new connection."""
        transport, wire = memory_pair()
        self.clients.start_soon(self._serve, transport, principal)
        return wire

    async def _serve(self, transport: Any, principal: Principal) -> None:
        try:
            await self.app.serve(transport, principal)
        finally:
            with trio.CancelScope(shield=True):
                await transport.aclose()

    async def log(self, session: str) -> list[Entry]:
        """What is stored of a session."""
        return await all_entries(self.store.inner, session)

    async def image(self) -> FaultyStore:
        """A copy of what is on the disk now: where the next daemon starts after a crash."""
        return FaultyStore(await copy_of(self.store.inner))


async def copy_of(store: Store) -> MemoryStore:
    """Another store that holds the same."""
    copy = MemoryStore()
    for stored in await store.list():
        entries = tuple(await all_entries(store, stored.head.id))
        await copy.commit([Change(stored.head.id, entries, stored.head, create=True)])
    return copy


def simulated(main: Callable[[], Awaitable[Any]], **settings: Any) -> Any:
    """`trio.run` on a clock that jumps to the next deadline whenever nothing else happens.

    Whole modules say `pytestmark = pytest.mark.trio(run=simulated)`: only the arguments of a test
    itself, and not those of its fixtures, could give it a clock.
    """
    settings["clock"] = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(main, **settings)


def now() -> float:
    """The time of day on the simulated clock."""
    return EPOCH + trio.current_time()


def moment() -> Moment:
    """The same for what is measured, in a machine that is never started anew."""
    return Moment("simulated", round(trio.current_time() * 1000), now())


def some_settings(**changes: Any) -> Settings:
    defaults: Json = {
        "default_agent": "puppet",
        "grace_seconds": GRACE,
        "providers": dict.fromkeys(("anthropic.default", "ollama.default"), PROVIDER),
        "default_provider": "ollama.default",
    }
    return Settings(state_dir=Path("/nowhere"), **(defaults | changes))


@asynccontextmanager
async def open_daemon(
    store: FaultyStore | None = None,
    *,
    agents: tuple[Agent, ...] = (),
    sessions: type[Sessions] = Sessions,
    mends: bool = True,
    **settings: Any,
) -> AsyncGenerator[Daemon]:
    """A core on `store`, a new one by default; on leaving it is stopped as a daemon is.

    By then the store works again, unless it never `mends`. `sessions` is the class of the session
    list: a test of the tests gives one with a bug.
    """
    store = store or FaultyStore(MemoryStore())
    puppet = Puppet()
    abandoned: list[float] = []

    def abandon() -> None:
        abandoned.append(trio.current_time())
        for agent in (puppet, *agents):
            if isinstance(agent, Puppet):
                agent.let_go()

    core = open_core(
        some_settings(**settings),
        _opening(store),
        KEY,
        {agent.name: agent for agent in (puppet, *agents)},
        abandon=abandon,
        now=now,
        moments=moment,
    )
    async with core as app:
        if sessions is not Sessions:
            found = app.desk.sessions
            app.desk.sessions = sessions(found.around, found.committer, parked=found.parked)
        async with trio.open_nursery() as clients:
            try:
                yield Daemon(app, store, puppet, clients, abandoned)
            finally:
                if mends:
                    store.release()
                    store.make_room()
                await stop(app)
            clients.cancel_scope.cancel()


async def stop(app: App) -> None:
    """What a daemon does between its last client and its end."""
    with trio.move_on_after(app.desk.sessions.around.rules.grace + DRAIN_SLACK, shield=True):
        await app.desk.sessions.drain()
    await app.drain()


@asynccontextmanager
async def _opening(store: FaultyStore) -> AsyncGenerator[Store]:
    yield store

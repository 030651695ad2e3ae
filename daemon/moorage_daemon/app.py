"""The daemon, put together: the one place where parts meet.

Everything is a nested `async with`, so leaving unwinds in reverse: clients stop being accepted,
turns get their verdicts, clients are sent the rest, the listeners close, the store closes last.
Agents have the outermost nursery: one that ignores its cancellation holds up nothing but the end
of the process.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from moorage_daemon.agents.absent import agent_named
from moorage_daemon.agents.port import Agent
from moorage_daemon.agents.scripted import ScriptedAgent
from moorage_daemon.connection.connection import Connection, stranger
from moorage_daemon.connection.transport import Transport
from moorage_daemon.grants.accounts import Accounts
from moorage_daemon.grants.moments import MachineClock, Moment
from moorage_daemon.grants.policy import Policy
from moorage_daemon.handlers.options import Offered
from moorage_daemon.handlers.port import About, Desk
from moorage_daemon.housekeeping import Housekeeping
from moorage_daemon.identity import LOCAL, Identity, Principal, TuiKeys
from moorage_daemon.ledger.credentials import Credentials
from moorage_daemon.ledger.ledger import DAY, Ledger
from moorage_daemon.ledger.sensitivity import Classifier
from moorage_daemon.log.committer import Committer
from moorage_daemon.log.recovery import recover
from moorage_daemon.provider_settings import BadProvider
from moorage_daemon.sessions import DRAIN_SLACK, Sessions, open_sessions
from moorage_daemon.settings import ClosePolicy, Settings
from moorage_daemon.statedir import StateDir
from moorage_daemon.store.opening import BadStore, Choice, find_store
from moorage_daemon.store.port import Store, Stored
from moorage_daemon.surroundings import Rules, Surroundings
from moorage_daemon.transfer.imports import Imports
from moorage_daemon.transports.gate import Gate, token_check
from moorage_daemon.transports.room import open_room
from moorage_daemon.transports.stdio import StdioTransport
from moorage_daemon.transports.unix import bind, serve_unix
from moorage_daemon.transports.websocket import open_websocket
from moorage_daemon.turn.ground import Law
from moorage_protocol import __version__
from moorage_protocol.config import Permissions
from moorage_protocol.moorage import Role


logger = logging.getLogger(__name__)

DRAIN = 2.0  # seconds in which clients are sent the last of it when the daemon stops
STUBBORN = 0.5  # seconds in which a cancelled agent lets go
WRITE_OUT = 5.0  # seconds in which the last entries become durable
OWNER = Principal(LOCAL, Role.OPERATOR)


class AppError(Exception):
    """The daemon cannot start; one line says why."""


@dataclass(eq=False)
class App:
    """A running daemon."""

    desk: Desk
    connections: set[Connection] = field(default_factory=set[Connection])
    websocket_port: int | None = None
    _boot: str = field(default_factory=lambda: secrets.token_hex(4))
    _served: int = 0

    async def serve(self, transport: Transport, principal: Principal = OWNER) -> None:
        """Serve one client until it goes."""
        self._served += 1
        name = f"{self._boot}-{self._served}"  # never reused: entries remember it
        connection = Connection(self.desk, transport, stranger(name, principal, transport.name))
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)

    def identities(self) -> list[Identity]:
        """Who is connected now."""
        return [connection.identity for connection in self.connections if connection.initialized]

    async def drain(self) -> None:
        """Send every client what is left for it, within a bound."""
        with trio.move_on_after(DRAIN, shield=True):
            async with trio.open_nursery() as nursery:
                for connection in [*self.connections]:
                    nursery.start_soon(connection.drain)


@asynccontextmanager
async def open_agents(settings: Settings) -> AsyncGenerator[dict[str, Agent]]:
    """The agents, by name. The native one needs a provider; raises `AppError` without."""
    agents: dict[str, Agent] = {"scripted": ScriptedAgent()}
    if settings.default_provider is None:
        if settings.default_agent == "native":
            raise AppError("default_agent is 'native', which needs a provider: [providers.NAME]")
        yield agents
        return
    # Here and not above: an HTTP library adds a seventh to the start, and not every daemon talks.
    from moorage_daemon.agents.native import NativeAgent
    from moorage_daemon.providers.opening import open_providers

    try:
        async with open_providers(settings.providers) as providers:
            yield agents | {"native": NativeAgent(providers, settings.default_provider)}
    except BadProvider as problem:
        raise AppError(str(problem)) from problem


async def check_agents(settings: Settings) -> None:
    """Raises the `AppError` with which a daemon of these settings would not start, if any."""
    async with open_agents(settings) as agents:
        _must_be_known(settings.default_agent, agents)


def chosen_store(settings: Settings, state_dir: Path) -> Choice:
    """The store of these settings, which is not touched yet; raises `AppError`."""
    try:
        return find_store(settings.store, state_dir)
    except BadStore as problem:
        raise AppError(str(problem)) from problem


def _must_be_known(agent: str, agents: dict[str, Agent]) -> None:
    if agent not in agents:
        known = ", ".join(sorted(agents))
        raise AppError(f"default_agent is {agent!r}, there are: {known}")


@asynccontextmanager
async def open_app(
    settings: Settings,
    state: StateDir,
    *,
    agents: dict[str, Agent] | None = None,
    abandon: Callable[[], None] = lambda: None,
) -> AsyncGenerator[App]:
    """A daemon on its state directory that serves nobody yet; see `open_listeners`.

    `abandon` is called at the very end when an agent does not let go: it has to end the process.
    Raises `AppError`, or `StoreError` when the store cannot be opened.
    """
    opening = open_agents(settings) if agents is None else nullcontext(agents)
    async with opening as agents:
        store = chosen_store(settings, state.path).open()
        async with open_core(settings, store, state.key, agents, abandon=abandon) as app:
            yield app


@asynccontextmanager
async def open_app_in_memory(
    settings: Settings, *, abandon: Callable[[], None] = lambda: None
) -> AsyncGenerator[App]:
    """A daemon that leaves nothing behind and is nobody's but its one client's."""
    key = secrets.token_bytes(32)
    async with open_agents(settings) as agents:
        async with open_core(settings, _memory(), key, agents, abandon=abandon) as app:
            yield app


@asynccontextmanager
async def _memory() -> AsyncGenerator[Store]:
    from moorage_daemon.store.memory import MemoryStore  # not above: few daemons keep nothing

    yield MemoryStore()


@asynccontextmanager
async def open_core(
    settings: Settings,
    opening: AbstractAsyncContextManager[Store],
    key: bytes,
    agents: dict[str, Agent],
    *,
    abandon: Callable[[], None] = lambda: None,
    now: Callable[[], float] = time.time,
    moments: Callable[[], Moment] | None = None,
) -> AsyncGenerator[App]:
    """The daemon as it is on any store, without files, sockets and processes of its own.

    `opening` gives the store and closes it; `key` is what TUI secrets are made from.
    """
    _must_be_known(settings.default_agent, agents)
    async with AsyncExitStack() as stack:
        bodies = await stack.enter_async_context(_agents_nursery(abandon))
        store = await stack.enter_async_context(opening)
        stored = await recover(store, now)
        committer = await stack.enter_async_context(_committing(store, settings, now))
        ledger = await stack.enter_async_context(
            _open_ledger(settings, committer, stored, moments or MachineClock())
        )
        turns = await stack.enter_async_context(_turns_nursery())
        around = Surroundings(
            rules=_rules(settings),
            sessions=turns,
            agents=bodies,
            store=store,
            agent_named=partial(agent_named, agents),
            law=_law(settings, ledger),
        )
        damaged = {found.session: found.problem for found in await store.damaged() if found.session}
        sessions = await stack.enter_async_context(
            _open_sessions(around, committer, stored, damaged)
        )
        housekeeping = Housekeeping(sessions, store, settings.retention)
        await stack.enter_async_context(_keeping_house(housekeeping))
        desk = Desk(
            about=_about(),
            sessions=sessions,
            housekeeping=housekeeping,
            ledger=ledger,
            tuis=TuiKeys(key),
            agents=agents,
            default_agent=settings.default_agent,
            providers=Offered(settings.providers, settings.default_provider),
            imports=Imports(sessions),
            close_is_served_to_all=settings.close_policy is ClosePolicy.CLOSE,
        )
        app = App(desk)
        desk.connected = app.identities
        yield app


def _law(settings: Settings, ledger: Ledger) -> Law:
    """What holds for the tool calls of all sessions."""
    return Law(
        ledger=ledger,
        policy=Policy(settings.permissions or Permissions(default=None)),
        classify=Classifier(settings.grants.sensitivity),
        secrets=Credentials(settings.grants.credentials).read,
    )


def _open_sessions(
    around: Surroundings, committer: Committer, stored: list[Stored], damaged: dict[str, str]
) -> AbstractAsyncContextManager[Sessions]:
    """The sessions of a store, in which grants are kept as well."""
    found = [each for each in stored if each.head.record is None]
    return open_sessions(around, committer, found, damaged)


@asynccontextmanager
async def _keeping_house(housekeeping: Housekeeping) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(housekeeping.run)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_ledger(
    settings: Settings,
    committer: Committer,
    stored: list[Stored],
    clock: Callable[[], Moment],
) -> AsyncGenerator[Ledger]:
    """The grants of a store, looked after until the sessions that stand on them have ended."""
    limits = settings.grants
    ledger = Ledger(Accounts(limits.max_per_agent), committer, clock, limits.retention_days * DAY)
    ledger.take_up(stored)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.look_after)
        try:
            yield ledger
        finally:
            ledger.note_refusals()
            nursery.cancel_scope.cancel()


def _rules(settings: Settings) -> Rules:
    return Rules(
        prompt_queue=settings.prompt_queue,
        grace=settings.grace_seconds,
        turn_limit=settings.turn_timeout_seconds,
        ask_limit=settings.permission_timeout_seconds,
    )


def _about() -> About:
    return About(
        version=__version__, pid=os.getpid(), node=socket.gethostname(), started=time.time()
    )


@asynccontextmanager
async def _agents_nursery(abandon: Callable[[], None]) -> AsyncGenerator[trio.Nursery]:
    """Where agents run. Leaving cancels what is left, and abandons what ignores that.

    By then every verdict is durable and the store is closed.
    """
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        finally:
            nursery.cancel_scope.cancel(reason="the daemon stops")
            with trio.move_on_after(STUBBORN, shield=True):
                while nursery.child_tasks:  # noqa: ASYNC110 - a nursery has no event for it
                    await trio.sleep(STUBBORN / 50)
            if nursery.child_tasks:
                logger.warning("an agent ignores the end", extra={"left": len(nursery.child_tasks)})
                abandon()


@asynccontextmanager
async def _turns_nursery() -> AsyncGenerator[trio.Nursery]:
    """Where conductors are. Leaving cuts what the drain could not end: a disk may never answer."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel(reason="the daemon stops")


@asynccontextmanager
async def _committing(
    store: Store, settings: Settings, now: Callable[[], float]
) -> AsyncGenerator[Committer]:
    """The committer at work; on leaving, what was written becomes durable, within a bound."""
    floor = settings.disk_floor_mb * 2**20
    committer = Committer(store, patience=settings.grace_seconds, floor=floor, clock=now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        try:
            yield committer
        finally:
            committer.close()
            with trio.move_on_after(WRITE_OUT, shield=True) as bound:
                await committer.written()
            if bound.cancelled_caught:
                logger.error("the last entries could not be written in time")
            nursery.cancel_scope.cancel()


def _gate_for(settings: Settings, state: StateDir) -> Callable[[int], Gate]:
    authenticate = token_check(state.token, OWNER)

    def gate(port: int) -> Gate:
        return Gate(port, authenticate, settings.allowed_hosts, settings.allowed_origins)

    return gate


@asynccontextmanager
async def open_listeners(app: App, settings: Settings, state: StateDir) -> AsyncGenerator[App]:
    """Let clients in. On leaving: no new ones, every turn its verdict, everybody the rest of it."""
    listener, room = bind(state.socket_path), open_room()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_unix, listener, app.serve, app.desk.sessions.supervisors, room)
        async with AsyncExitStack() as stack:
            if settings.websocket is not None:
                app.websocket_port = await stack.enter_async_context(
                    open_websocket(settings.websocket, _gate_for(settings, state), app.serve, room)
                )
            try:
                yield app
            finally:
                listener.close()
                await _wind_up(app, settings)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_conversation(
    app: App, settings: Settings, transport: StdioTransport
) -> AsyncGenerator[App]:
    """Serve the one client there is; `transport.over` is set when it has gone.

    On leaving: every turn its verdict, and the client, if it still reads, the rest of it.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve_alone, app, transport)
        try:
            yield app
        finally:
            await _wind_up(app, settings)
        nursery.cancel_scope.cancel()


async def _serve_alone(app: App, transport: StdioTransport) -> None:
    try:
        await app.serve(transport)
    finally:
        transport.over.set()


async def _wind_up(app: App, settings: Settings) -> None:
    """Give every turn its verdict, and every client what is left for it, within bounds."""
    with trio.move_on_after(settings.grace_seconds + DRAIN_SLACK, shield=True):
        await app.desk.sessions.drain()
    await app.drain()

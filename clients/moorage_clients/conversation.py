"""A conversation with a daemon that outlives its connections.

When a connection is lost, whoever needs one waits in `wait_connected`: the first to come tries to
connect, at once and then after pauses that double from 0.05 to 1 second, until `PATIENCE` seconds
have passed since the loss (about 33 tries); the others wait for that one. A client that connects
again is the same terminal and the same instance as before, so the daemon does not tell it its own
words again. Nothing here starts a daemon.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

import msgspec
import trio

from moorage_clients.connection import Connection, OnPermission
from moorage_clients.errors import CannotConnect, ClientError, ConnectionLost, KeepsNoSecrets
from moorage_clients.identity import Identity, IdentityFile
from moorage_clients.links import Link, open_link
from moorage_protocol import __version__
from moorage_protocol.acp import PROTOCOL_VERSION, ClientCapabilities, Implementation, Meta
from moorage_protocol.errors import NotPermitted, RpcError, Stopping
from moorage_protocol.moorage import (
    BlockMeta,
    ClientHello,
    InitializeParams,
    InitializeResult,
    PromptParams,
    Welcome,
)


R = TypeVar("R")

PATIENCE = 30.0  # seconds, from a loss on, that a daemon has to be there again
ATTEMPT = 10.0  # seconds for the one attempt that is made when these are over
FIRST_PAUSE = 0.05  # seconds between two attempts
LONGEST_PAUSE = 1.0
STEADY = 5.0  # seconds that a connection lives before its end counts as a new trouble

# Called with the loss when a connection is lost, and with None when there is one again.
OnConnection = Callable[[ConnectionLost | None], None]

logger = logging.getLogger(__name__)


def is_stopping(error: object) -> bool:
    """Whether a daemon refused something because it ends: the next one may be asked."""
    return isinstance(error, RpcError) and error.kind == Stopping.kind


@dataclass(eq=False)
class Conversation:
    """Talks to the daemon that `find` gives the address of, and comes back if it `may_return`.

    `find` may raise `CannotConnect`: there is none just now.
    """

    find: Callable[[], str]
    nursery: trio.Nursery = field(repr=False)
    token: str | None = field(repr=False)
    name: str
    identity_file: IdentityFile | None
    on_permission: OnPermission | None
    on_connection: OnConnection | None
    may_return: bool
    dial: Callable[[str, str | None], AbstractAsyncContextManager[Link]] = open_link
    _instance: str = field(default_factory=lambda: uuid4().hex)
    _identity: Identity | None = field(default=None, repr=False)
    _connecting: trio.Lock = field(default_factory=trio.Lock)
    _connection: Connection | None = None
    _welcome: Welcome | None = field(default=None, repr=False)
    _connected_at: float = 0.0
    _gave_up_at: float = -1.0
    _trouble: str = "the daemon does not answer"  # of the last attempt
    _pause: float = FIRST_PAUSE
    _is_closing: bool = False

    @property
    def connection(self) -> Connection:
        """The present connection; it may be lost."""
        if self._connection is None:
            raise ConnectionLost("not connected")
        return self._connection

    @property
    def welcome(self) -> Welcome:
        """What the daemon said of itself and of us."""
        if self._welcome is None:
            raise ConnectionLost("not connected")
        return self._welcome

    @property
    def returns(self) -> bool:
        """Whether a lost connection is followed by another one."""
        return self.may_return and not self._is_closing

    @property
    def _is_connected(self) -> bool:
        return self._connection is not None and self._connection.lost is None

    # ---- connecting

    async def reconnect(self) -> None:
        """Connect again if the connection is lost, in one attempt.

        Raises `CannotConnect`, `ConnectionLost`, or what the daemon refuses `initialize` with.
        """
        async with self._connecting:
            if not self._is_connected:
                await self._connect()

    async def wait_connected(self) -> None:
        """Wait until there is a connection; raises `ConnectionLost` when there is none in time."""
        asked_at = trio.current_time()
        async with self._connecting:
            lost = self.connection
            while not self._is_connected:
                if not self.returns:
                    raise ConnectionLost(_problem(lost))
                if self._gave_up_at > asked_at:  # while we stood in line
                    raise ConnectionLost(self._why(lost))
                await self._try_again(lost)

    async def wait_ready(self, prompt: PromptParams) -> None:
        """Wait for a connection over which that prompt can be sent.

        Raises `ConnectionLost` and `KeepsNoSecrets`: each time, as the next daemon may be older.
        """
        await self.wait_connected()
        if not self.welcome.secrets and any(map(_is_secret, prompt.prompt)):
            raise KeepsNoSecrets

    async def _try_again(self, lost: Connection) -> None:
        """Make one attempt, behind the pause that is due; raises `ConnectionLost` at the last."""
        now, deadline = trio.current_time(), lost.lost_at + PATIENCE
        with trio.move_on_at(deadline if now < deadline else now + ATTEMPT):
            pause, self._pause = self._pause, min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
            await trio.sleep(pause)
            try:
                await self._connect()
            except (ClientError, RpcError) as error:
                self._trouble = str(error)
        if not self._is_connected and trio.current_time() >= deadline:
            self._gave_up_at = trio.current_time()
            raise ConnectionLost(self._why(lost))

    def _why(self, lost: Connection) -> str:
        return f"{_problem(lost)}; {self._trouble}"

    async def _connect(self) -> None:
        connection = await self.nursery.start(self._run)
        assert isinstance(connection, Connection)
        try:
            self._welcome = await self._initialize(connection)
        except BaseException:
            connection.abort()
            raise
        is_back, self._connection = self._connection is not None, connection
        self._connected_at = trio.current_time()
        if is_back and self.on_connection is not None:
            self.on_connection(None)

    async def _run(
        self, *, task_status: trio.TaskStatus[Connection] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with self.dial(self.find(), self.token) as link:
            connection = Connection(link, self.on_permission, self._note_loss)
            await connection.run(task_status=task_status)

    def _note_loss(self, connection: Connection) -> None:
        if connection is not self._connection or self._is_closing:
            return
        if connection.lost_at - self._connected_at >= STEADY:
            self._pause = 0.0  # else it comes and goes, and nobody is in a hurry
        self._trouble = "the daemon does not answer"
        if self.on_connection is not None:
            self.on_connection(connection.lost)

    # ---- getting acquainted

    async def _initialize(self, connection: Connection) -> Welcome:
        known = self._identity
        if known is None and self.identity_file is not None:
            known = self.identity_file.read()
        try:
            welcome = await self._introduce(connection, known)
        except NotPermitted:
            if known is None:
                raise
            welcome = await self._introduce(connection, None)  # of another daemon's time
        if welcome.tui_secret is not None:
            self._identity = Identity(welcome.tui_id, welcome.tui_secret)
            self._keep(self._identity, known)
        else:
            self._identity = known
        return welcome

    def _keep(self, identity: Identity, instead_of: Identity | None) -> None:
        if self.identity_file is None:
            return
        try:
            self.identity_file.keep(identity, instead_of)
        except OSError as error:  # we are it until we end, which is most of what was asked for
            logger.warning("this terminal's identity cannot be kept: %s", error)

    async def _introduce(self, connection: Connection, identity: Identity | None) -> Welcome:
        hello = ClientHello(
            tui_id=None if identity is None else identity.tui_id,
            tui_secret=None if identity is None else identity.tui_secret,
            name=self.name,
            instance=self._instance,
        )
        params = InitializeParams(
            protocol_version=PROTOCOL_VERSION,
            client_capabilities=ClientCapabilities(),
            client_info=Implementation(name=self.name, version=__version__),
            meta=Meta(moorage=hello),
        )
        result = await connection.request("initialize", params, InitializeResult)
        if isinstance(result.meta, msgspec.UnsetType) or isinstance(
            result.meta.moorage, msgspec.UnsetType
        ):
            raise CannotConnect(self.find(), "that is an agent, but no moorage daemon")
        return result.meta.moorage

    async def aclose(self) -> None:
        """Write what is on its way out, and end the connection."""
        self._is_closing = True
        if self._connection is not None:
            await self._connection.close()

    # ---- asking

    async def ask(
        self, method: str, params: msgspec.Struct, shape: type[R], *, once: bool = False
    ) -> R:
        """Ask and wait for the answer, over as many connections as it takes.

        What may be done only `once` is not asked again when it was lost on the way. Raises the
        `RpcError` that was answered, and `ConnectionLost`.
        """
        while True:
            await self.wait_connected()
            connection = self.connection
            try:
                return await connection.request(method, params, shape)
            except ConnectionLost:
                if once or not self.returns:
                    raise
            except RpcError as error:
                if not (self.returns and is_stopping(error)):
                    raise
                await connection.wait_lost()


class _Block(msgspec.Struct, frozen=True):
    meta: Meta[BlockMeta] = msgspec.field(name="_meta", default=Meta[BlockMeta]())


def _is_secret(block: msgspec.Raw) -> bool:
    ours = msgspec.json.decode(block, type=_Block).meta.moorage
    return isinstance(ours, BlockMeta) and ours.secret


def _problem(connection: Connection) -> str:
    return "not connected" if connection.lost is None else connection.lost.problem

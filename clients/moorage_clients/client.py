"""A client of the daemon: sessions, turns and their logs, as trio code wants them.

    async with open_client(state_dir=default_state_dir(os.environ)) as client:
        session = await client.new_session(os.getcwd())
        async with client.prompt(session.session_id, "/plan") as turn:
            async for message in turn:
                print(message)
        print(turn.result.stop_reason)

One connection carries everything. Nothing is held without bound: while the messages of a session
are not read, the connection is not read either, and answers that stand behind them wait. Whoever
has no use for a session's messages any more leaves the block of its attachment or turn. (Over a
WebSocket a client that stands still for longer than the daemon's pings allow, about 15 seconds, is
taken for dead: its connection is lost.)

**When the connection is lost**, or the daemon is stopped or killed, the client comes back by itself
as soon as something needs a connection. It tries to connect at once and then after pauses that
double from 0.05 to 1 second, for 30 seconds from the loss on: about 33 attempts. What callers see:

- An iteration over an attachment goes on behind the message that was handed out last: none is
  missed, none comes twice. `Attachment.returns` counts it, `snapshot` is then the new one.
- An iteration over a turn goes on likewise. Its prompt is sent again with the `prompt_id` it had:
  it runs if it never arrived, goes on if it runs, and ends as it ended. A turn that the end of the
  daemon has cut is `cancelled`, with `cause` `daemon_restart`. The same holds for `send_prompt`
  and for `submit`, which keeps its order.
- A request that was not answered is sent again, as all may be repeated but four: `new_session`,
  `load`, `raise_grant` and `close_grant` raise `ConnectionLost` when it was under way. (A withdraw
  that is repeated may say that there was nothing to take back.) Questions are put again to
  `on_permission`.
- After 30 seconds all of these raise `ConnectionLost`, and `then` of `submit` gets it. The client
  stays usable: what is asked later makes one more attempt, of at most 10 seconds.
- `on_connection` is told of each loss and each return, for who wants to show it.

With `returns=False` nothing of that happens by itself: everything raises `ConnectionLost` at once,
and `reconnect` and `Attachment.reattach` are there to go on. Nothing here ever starts a daemon.
`version_notice` has a word for the person when the daemon is of another version.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import msgspec
import trio

from moorage_clients.attachment import Attachment
from moorage_clients.connection import Connection, OnPermission
from moorage_clients.conversation import Conversation, OnConnection
from moorage_clients.errors import CannotConnect, ConnectionLost
from moorage_clients.identity import IdentityFile
from moorage_clients.nursery import open_quiet_nursery
from moorage_clients.submissions import Outcome, Submission, Submissions
from moorage_clients.turn import Turn
from moorage_clients.version import difference
from moorage_protocol.acp import (
    ArchiveFilter,
    ContentBlock,
    Empty,
    ListParams,
    LoadParams,
    Meta,
    SessionParams,
    Text,
)
from moorage_protocol.errors import RpcError
from moorage_protocol.grants import (
    CloseResult,
    GcResult,
    GrantDetail,
    GrantListParams,
    GrantListResult,
    GrantParams,
    GrantStatus,
    GrantSummary,
    RaiseParams,
    SessionGrant,
)
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import (
    Access,
    CancelMeta,
    CancelParams,
    CancelResult,
    ConfigureParams,
    ConfigureResult,
    EntriesParams,
    EntriesResult,
    KillParams,
    KillResult,
    ListResult,
    LiveParams,
    LiveResult,
    LoadResult,
    Mode,
    NewMeta,
    NewParams,
    NewResult,
    OnBusy,
    OverridesPatch,
    PauseResult,
    PromptMeta,
    PromptParams,
    PromptResult,
    RespondParams,
    RespondResult,
    Scope,
    SecretText,
    SessionInfo,
    State,
    StatusResult,
    ToolEnvironment,
    TuisResult,
    TurnsParams,
    TurnsResult,
    Welcome,
    WithdrawParams,
    WithdrawResult,
)
from moorage_protocol.rendezvous import read_daemon
from moorage_protocol.upkeep import StoreCheckResult, StoreGcResult, StoreHealthResult


R = TypeVar("R")

logger = logging.getLogger(__name__)

CLOSE_PATIENCE = 3  # seconds for what was sent last to go out when a client ends


@dataclass(eq=False)
class Client:
    """A conversation with one daemon, over one connection at a time.

    All methods raise `ConnectionLost` when the connection is lost and there is none again in time,
    and the `RpcError` that the daemon answers: `NotFound` for a session that is unknown, killed or
    somebody else's.
    """

    conversation: Conversation
    _submissions: Submissions = field(init=False)

    def __post_init__(self) -> None:
        self._submissions = Submissions(self.conversation)

    # ---- the connection

    @property
    def connection(self) -> Connection:
        """The present connection; it may be lost."""
        return self.conversation.connection

    @property
    def welcome(self) -> Welcome:
        """What the daemon said of itself and of us, on the present connection."""
        return self.conversation.welcome

    @property
    def version_notice(self) -> str | None:
        """A word for the person if the daemon is of another version than this library."""
        return difference(self.welcome.daemon.version)

    async def reconnect(self) -> None:
        """Connect again at once if the connection is lost, in one attempt.

        Raises `CannotConnect`, `ConnectionLost`, or what the daemon refuses `initialize` with; the
        client stays usable, so try again.
        """
        await self.conversation.reconnect()

    async def aclose(self) -> None:
        """Write what is on its way out, and end the connection."""
        await self.conversation.aclose()

    async def call(self, method: str, params: msgspec.Struct, shape: type[R]) -> R:
        """Ask what none of the methods here asks; see `records` for some of it."""
        return await self._ask(method, params, shape)

    async def _ask(self, method: str, params: msgspec.Struct, shape: type[R]) -> R:
        return await self.conversation.ask(method, params, shape)

    # ---- sessions

    async def new_session(
        self,
        cwd: str | Path,
        *,
        mode: Mode = Mode.CODE,
        agent: str | None = None,
        overrides: OverridesPatch | None = None,
        keep_siblings: bool = False,
        environment: ToolEnvironment | None = None,
        grant: SessionGrant | None = None,
    ) -> NewResult:
        """Start a session in the absolute directory `cwd`; it is durable when this returns.

        `environment` is lent to its tools instead of the daemon's own; `grant` is what it may do.
        """
        wish = NewMeta(
            mode=mode,
            agent=agent,
            overrides=OverridesPatch() if overrides is None else overrides,
            keep_siblings=keep_siblings,
            environment=environment,
            grant=grant,
        )
        params = NewParams(cwd=str(cwd), mcp_servers=[], meta=Meta(moorage=wish))
        return await self.conversation.ask("session/new", params, NewResult, once=True)

    async def load(self, session_id: str, cwd: str | Path) -> LoadResult:
        """Bring a session back and have all of it sent again before this returns.

        For clients that draw from updates alone. The replay goes to the session's attachment or
        turn, if one is open; `attach` from 0 gives the same with numbers and a snapshot.
        """
        await self.conversation.wait_connected()
        connection = self.connection
        sequence = connection.following(session_id).sequence
        sequence.replays += 1

        def loaded(_: object) -> None:
            sequence.replays -= 1

        params = LoadParams(session_id=session_id, cwd=str(cwd), mcp_servers=[])
        return await connection.request("session/load", params, LoadResult, loaded)

    async def resume(self, session_id: str, cwd: str | Path) -> LoadResult:
        """Bring a session back without its history."""
        params = LoadParams(session_id=session_id, cwd=str(cwd), mcp_servers=[])
        return await self._ask("session/resume", params, LoadResult)

    async def sessions(
        self, cwd: str | Path | None = None, *, archived: ArchiveFilter | None = None
    ) -> list[SessionInfo]:
        """All sessions of this principal, or those of a directory; newest first, killed too."""
        found: list[SessionInfo] = []
        params = ListParams(cwd=None if cwd is None else str(cwd), archived=archived)
        while True:
            page = await self._ask("session/list", params, ListResult)
            found += page.sessions
            if not isinstance(page.next_cursor, str):
                return found
            params = msgspec.structs.replace(params, cursor=page.next_cursor)

    async def live(self, *, everybody: bool = False) -> LiveResult:
        """The sessions that are in the daemon's memory; `everybody`'s if we are operator."""
        return await self._ask("_moorage/session/live", LiveParams(all=everybody), LiveResult)

    async def close(self, session_id: str) -> None:
        """Stop the session's turn, wait for its verdict, put it away; `load` brings it back."""
        await self._ask("session/close", SessionParams(session_id=session_id), Empty)

    async def delete(self, session_id: str) -> None:
        """Remove a session and its log; one that is not there counts as removed."""
        await self._ask("session/delete", SessionParams(session_id=session_id), Empty)

    async def kill(self, session_id: str, reason: str | None = None) -> KillResult:
        """End a session for ever, with every process of it; its log stays."""
        params = KillParams(session_id=session_id, reason=reason)
        return await self._ask("session/kill", params, KillResult)

    async def pause(self, session_id: str) -> State:
        """Let no turn of a session start; the one that runs ends by itself, prompts wait."""
        params = SessionParams(session_id=session_id)
        return (await self._ask("_moorage/session/pause", params, PauseResult)).state

    async def unpause(self, session_id: str) -> State:
        """Let turns start again, the first that waits at once; gives the state after that."""
        params = SessionParams(session_id=session_id)
        return (await self._ask("_moorage/session/resume", params, PauseResult)).state

    async def configure(self, session_id: str, overrides: OverridesPatch) -> ConfigureResult:
        """Change the model settings: absent keeps, None clears, a value sets; all or nothing."""
        params = ConfigureParams(session_id=session_id, overrides=overrides)
        return await self._ask("session/configure", params, ConfigureResult)

    # ---- turns

    @asynccontextmanager
    async def prompt(
        self,
        session_id: str,
        prompt: str | Sequence[ContentBlock | SecretText],
        *,
        prompt_id: str | None = None,
        on_busy: OnBusy = OnBusy.QUEUE,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[Turn, None]:
        """Prompt, and follow the turn in the block; leaving the block leaves the turn running.

        The same `prompt_id` again does not run the prompt twice. A `SecretText` among the blocks is
        for the agent and kept nowhere; `KeepsNoSecrets` says that this daemon would keep it.
        """
        wish = PromptMeta(
            prompt_id=prompt_id or uuid4().hex, on_busy=on_busy, timeout_seconds=timeout_seconds
        )
        params = _prompt_params(session_id, prompt, wish)
        turn = Turn(self.conversation, params, wish.prompt_id or "")
        await turn.start()
        try:
            yield turn
        finally:
            turn.leave()

    async def send_prompt(
        self,
        session_id: str,
        prompt: str | Sequence[ContentBlock | SecretText],
        *,
        on_busy: OnBusy = OnBusy.QUEUE,
    ) -> PromptResult:
        """Prompt and wait for the turn's end; what it says goes to the session's attachment.

        Cancelling the wait leaves the turn running. Raises `TurnFailed`, `QueueFull`, `Busy`.
        """
        wish = PromptMeta(prompt_id=uuid4().hex, on_busy=on_busy)
        params = _prompt_params(session_id, prompt, wish)
        await self.conversation.wait_ready(params)
        return await self._ask("session/prompt", params, PromptResult)

    async def submit(
        self,
        session_id: str,
        prompt: str | Sequence[ContentBlock | SecretText],
        then: Callable[[Outcome], None],
    ) -> None:
        """Send a prompt and return when it is on its way: prompts arrive in the order of calls.

        `then` is called with what the prompt is answered with, when the turn has ended.
        """
        params = _prompt_params(session_id, prompt, PromptMeta(prompt_id=uuid4().hex))
        await self._submissions.submit(Submission(params, then))

    async def cancel(
        self, session_id: str, *, generation: int | None = None, scope: Scope | None = None
    ) -> CancelResult:
        """Ask a turn to stop; gives what was found. The turn's end comes as its own answer."""
        meta = CancelMeta(generation=generation, scope=scope)
        params = CancelParams(session_id=session_id, meta=Meta(moorage=meta))
        return await self._ask("session/cancel", params, CancelResult)

    async def notify_cancel(self, session_id: str) -> None:
        """Ask without an answer, so without waiting behind unread messages: stops what this
        connection prompted in the session, else the turn that runs."""
        await self.connection.notify("session/cancel", SessionParams(session_id=session_id))

    async def withdraw(self, session_id: str, generation: int) -> bool:
        """Take a queued prompt back; whether it was still queued."""
        params = WithdrawParams(session_id=session_id, generation=generation)
        result = await self._ask("_moorage/session/withdraw", params, WithdrawResult)
        return result.withdrawn

    async def respond(self, session_id: str, tool_call_id: str, option_id: str) -> RespondResult:
        """Decide an open question without having been asked."""
        params = RespondParams(
            session_id=session_id, tool_call_id=tool_call_id, option_id=option_id
        )
        return await self._ask("_moorage/permission/respond", params, RespondResult)

    # ---- the log

    @asynccontextmanager
    async def attach(
        self,
        session_id: str,
        after_seq: int | None = None,
        *,
        access: Access = Access.CONTROLLER,
    ) -> AsyncGenerator[Attachment, None]:
        """Follow a session's log from behind `after_seq` (None: from now) to the end of the block.

        Raises `CursorExpired` if that part of the log is gone.
        """
        await self.conversation.wait_connected()
        attachment = Attachment(self.conversation, session_id, access, after_seq)
        await attachment.reattach()
        try:
            yield attachment
        finally:
            attachment.leave()

    async def entries(
        self,
        session_id: str,
        after: int = 0,
        *,
        limit: int = 100,
        kinds: Sequence[str] | None = None,
    ) -> EntriesResult:
        """A page of the log, of a killed session too: `next` is where the next page is after."""
        params = EntriesParams(
            session_id=session_id,
            after=after,
            limit=limit,
            kinds=None if kinds is None else list(kinds),
        )
        return await self._ask("_moorage/session/entries", params, EntriesResult)

    async def turns(self, session_id: str, after: int = 0, limit: int = 100) -> TurnsResult:
        """A page of the turns, each with its verdict if it has one."""
        params = TurnsParams(session_id=session_id, after=after, limit=limit)
        return await self._ask("_moorage/session/turns", params, TurnsResult)

    # ---- grants

    async def grants(self, agent: str | None = None) -> list[GrantDetail]:
        """All grants of our principal, of one agent or of all, the newest first."""
        found: list[GrantDetail] = []
        cursor: str | None = None
        while True:
            params = GrantListParams(agent=agent, cursor=cursor)
            page = await self._ask("_moorage/grant/list", params, GrantListResult)
            found += page.grants
            if not isinstance(page.next_cursor, str):
                return found
            cursor = page.next_cursor

    async def raise_grant(self, params: RaiseParams) -> GrantStatus:
        """Give a grant more budget or time."""
        ask = self.conversation.ask
        return await ask("_moorage/grant/raise", params, GrantStatus, once=True)

    async def close_grant(self, grant_id: str) -> GrantSummary:
        """End a grant and all below it; gives how it was used."""
        params = GrantParams(grant_id=grant_id)
        ask = self.conversation.ask
        return (await ask("_moorage/grant/close", params, CloseResult, once=True)).summary

    async def forget_grants(self) -> int:
        """Remove the grants that ended long ago; gives how many that were."""
        return (await self._ask("_moorage/grant/gc", Empty(), GcResult)).removed

    # ---- the daemon

    async def status(self) -> StatusResult:
        """What the daemon is doing."""
        return await self._ask("_moorage/status", Empty(), StatusResult)

    async def store_health(self) -> StoreHealthResult:
        """Whether the store takes every step of durable writing; operators only."""
        return await self._ask("_moorage/store/health", Empty(), StoreHealthResult)

    async def check_store(self) -> StoreCheckResult:
        """What is wrong with what is stored, looked at byte for byte; operators only."""
        return await self._ask("_moorage/store/check", Empty(), StoreCheckResult)

    async def clean_store(self) -> StoreGcResult:
        """Remove what is kept too long and what nobody needs; operators only."""
        return await self._ask("_moorage/store/gc", Empty(), StoreGcResult)

    async def tuis(self) -> TuisResult:
        """The terminals that are connected or own sessions."""
        return await self._ask("_moorage/tui/list", Empty(), TuisResult)


def _prompt_params(
    session_id: str, prompt: str | Sequence[ContentBlock | SecretText], wish: PromptMeta
) -> PromptParams:
    blocks = [Text(text=prompt)] if isinstance(prompt, str) else prompt
    raw = [msgspec.Raw(encode(block)) for block in blocks]
    return PromptParams(session_id=session_id, prompt=raw, meta=Meta(moorage=wish))


@asynccontextmanager
async def open_client(
    address: str | None = None,
    *,
    state_dir: str | Path | None = None,
    token: str | None = None,
    name: str = "moorage_clients",
    identity: IdentityFile | None = None,
    on_permission: OnPermission | None = None,
    on_connection: OnConnection | None = None,
    returns: bool = True,
) -> AsyncGenerator[Client, None]:
    """Connect to the daemon at `address` (`unix:PATH`, `ws://HOST:PORT/acp`) or of `state_dir`.

    A WebSocket wants the `token`; the unix socket knows its user. `identity` is where this
    program keeps who it is. `on_permission` is asked what the daemon asks its controllers; it is
    cancelled when somebody else was faster. Without it questions are left to the others.
    `on_connection` is told of each loss and each return. Without `returns` a lost connection is
    left to the caller. Raises `CannotConnect`; bound the wait with `trio.fail_after`.
    """
    find = _finder(address, state_dir)
    async with open_quiet_nursery() as nursery:
        conversation = Conversation(
            find, nursery, token, name, identity, on_permission, on_connection, returns
        )
        client = Client(conversation)
        try:
            await _connect(client, find)
            yield client
        finally:
            with trio.move_on_after(CLOSE_PATIENCE, shield=True):
                await client.aclose()
            nursery.cancel_scope.cancel()


async def _connect(client: Client, find: Callable[[], str]) -> None:
    try:
        await client.reconnect()
    except ConnectionLost as error:
        raise CannotConnect(find(), str(error)) from error
    except RpcError as error:
        raise CannotConnect(find(), error.message) from error


def _finder(address: str | None, state_dir: str | Path | None) -> Callable[[], str]:
    """What says where the daemon is, now and whenever it was started again."""
    if address is not None:
        return lambda: address
    if state_dir is None:
        raise ValueError("an address or a state directory is needed")
    return lambda: _address_in(state_dir)


def _address_in(state_dir: str | Path) -> str:
    daemon = read_daemon(state_dir)
    if daemon is None:
        raise CannotConnect(str(state_dir), "no daemon is running there")
    return f"unix:{daemon.unix}"

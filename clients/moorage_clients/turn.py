"""A prompt and what becomes of it, as the client that prompted sees it."""

import trio

from moorage_clients.connection import Connection
from moorage_clients.conversation import Conversation, is_stopping
from moorage_clients.errors import ClientError, ConnectionLost
from moorage_clients.feed import Feed
from moorage_clients.messages import Admission, LogEntry, Message
from moorage_protocol.acp import Meta
from moorage_protocol.errors import RpcError
from moorage_protocol.moorage import (
    AttachParams,
    CancelMeta,
    CancelParams,
    CancelResult,
    PromptParams,
    PromptResult,
)


class Turn:
    """Iterate over it for the turn's messages, its admission first; then `result` stands.

    `generation` and `position` (0: not queued) are known from the admission on. The iteration
    raises what the prompt was answered with if that is an error (`TurnFailed`, `Busy`,
    `QueueFull` …). When the connection is lost, the prompt is sent again with its `prompt_id` over
    the next one: it runs once, and the messages go on where they stopped. `ConnectionLost` is
    raised when there is none in time, or at once with a client that does not return by itself;
    the turn may run on.
    """

    def __init__(self, conversation: Conversation, params: PromptParams, prompt_id: str) -> None:
        self.session_id = params.session_id
        self.prompt_id = prompt_id
        self.generation: int | None = None
        self.position = 0
        self._conversation = conversation
        self._connection: Connection | None = None
        self._params = params
        self._feed = Feed()
        self._outcome: PromptResult | RpcError | ClientError | None = None

    @property
    def result(self) -> PromptResult:
        """How the turn ended; raises the error it ended with, `RuntimeError` while it runs."""
        if self._outcome is None:
            raise RuntimeError("the turn has not ended")
        if isinstance(self._outcome, PromptResult):
            return self._outcome
        raise self._outcome

    async def start(self) -> None:
        """Send the prompt; raises `ConnectionLost` and `KeepsNoSecrets`."""
        while True:
            await self._conversation.wait_ready(self._params)
            connection, self._feed = self._conversation.connection, Feed(self._feed.last)
            self._connection, self._outcome = connection, None
            try:
                await self._follow(connection, self._feed)
                await connection.start_request(
                    "session/prompt", self._params, PromptResult, self._answered
                )
                return
            except ConnectionLost:
                self.leave()
                if not self._conversation.returns:
                    raise
            except BaseException:
                self.leave()
                raise

    async def _follow(self, connection: Connection, feed: Feed) -> None:
        """Have the session's messages come; the prompt itself attaches, if none has come yet."""
        if feed.last is None:
            connection.following(self.session_id).feeds.append(feed)
            return
        params = AttachParams(session_id=self.session_id, after_seq=feed.last, continues=True)
        await connection.attach(params, feed)

    def _answered(self, outcome: PromptResult | RpcError | ConnectionLost) -> None:
        self._outcome = outcome
        self._feed.end(None if isinstance(outcome, PromptResult) else outcome)

    def __aiter__(self) -> "Turn":
        return self

    async def __anext__(self) -> Message:
        while True:
            message = await self._next()
            if self.generation is None:
                self._recognize(message)
            if self.generation is not None and message.generation == self.generation:
                return message

    async def _next(self) -> Message:
        """The session's next message, over as many connections as it takes."""
        while True:
            try:
                return await self._feed.take()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            except (ConnectionLost, RpcError) as error:
                if not self._conversation.returns or self._connection is None:
                    raise
                if is_stopping(error):
                    await self._connection.wait_lost()
                elif isinstance(error, RpcError):
                    raise
            try:
                await self.start()
            except (ClientError, RpcError) as error:
                self._outcome = error
                raise

    def _recognize(self, message: Message) -> None:
        """Other turns may run before ours: our own is the one with our prompt id."""
        if isinstance(message, LogEntry) and message.kind == "prompt":
            admission = message.read(Admission)
            if admission.prompt_id == self.prompt_id:
                self.generation, self.position = message.generation, admission.position

    async def finish(self) -> PromptResult:
        """Let the rest of the turn pass and give its result, or raise its error."""
        async for _ in self:
            pass
        return self.result

    async def cancel(self) -> CancelResult:
        """Ask the turn to stop. The answer stands behind its unread messages: read on meanwhile."""
        meta = CancelMeta(generation=self.generation)
        params = CancelParams(session_id=self.session_id, meta=Meta(moorage=meta))
        return await self._conversation.ask("session/cancel", params, CancelResult)

    def leave(self) -> None:
        """Take no more messages; the turn runs on."""
        if self._connection is not None:
            self._connection.unfollow(self.session_id, self._feed, detach=self._outcome is None)

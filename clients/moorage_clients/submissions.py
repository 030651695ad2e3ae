"""Prompts that are sent without being waited for, and reach the daemon in the order of the calls.

What was not answered when a connection was lost is sent again over the next one, with the id that
the daemon knows it by, before anything that is submitted later.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from moorage_clients.connection import Connection
from moorage_clients.conversation import Conversation, is_stopping
from moorage_clients.errors import ConnectionLost, KeepsNoSecrets
from moorage_protocol.errors import RpcError
from moorage_protocol.moorage import PromptParams, PromptResult


Outcome = PromptResult | RpcError | ConnectionLost | KeepsNoSecrets


@dataclass(eq=False)
class Submission:
    """One prompt; `then` is called with what comes of it, once."""

    params: PromptParams
    then: Callable[[Outcome], None]
    number: int = 0


@dataclass(eq=False)
class Submissions:
    """All prompts of one client that nobody waits for."""

    conversation: Conversation
    _count: int = 0
    _lost: list[Submission] = field(default_factory=list[Submission])
    _sending: trio.Lock = field(default_factory=trio.Lock)

    async def submit(self, submission: Submission) -> None:
        """Send a prompt and return when it is on its way.

        Raises `ConnectionLost` and `KeepsNoSecrets`.
        """
        async with self._sending:
            self._count += 1
            submission.number = self._count
            await self._send_lost()
            while not await self._send(submission):
                await self._send_lost()

    async def _send(self, submission: Submission) -> bool:
        """Send one; whether nothing more has to be done for it.

        Raises `ConnectionLost` and `KeepsNoSecrets`.
        """
        await self.conversation.wait_ready(submission.params)
        connection = self.conversation.connection

        def settle(outcome: Outcome) -> None:
            is_lost = isinstance(outcome, ConnectionLost) or is_stopping(outcome)
            if not (is_lost and self.conversation.returns):
                submission.then(outcome)
                return
            self._keep(submission)
            self.conversation.nursery.start_soon(self._return, connection)

        try:
            await connection.start_request(
                "session/prompt", submission.params, PromptResult, settle
            )
        except ConnectionLost:
            if not self.conversation.returns:
                raise
            return submission in self._lost  # settled in the meantime: it will be sent again
        return True

    def _keep(self, submission: Submission) -> None:
        self._lost.append(submission)
        self._lost.sort(key=lambda lost: lost.number)

    async def _return(self, connection: Connection) -> None:
        await connection.wait_lost()  # a daemon that is stopping takes its time
        async with self._sending:
            await self._send_lost()

    async def _send_lost(self) -> None:
        """Send again what was lost; if there is no daemon in time, it is told so."""
        while self._lost:
            first = self._lost.pop(0)
            try:
                if not await self._send(first):
                    self._keep(first)
            except KeepsNoSecrets as error:
                first.then(error)
            except ConnectionLost as error:
                for submission in (first, *self._lost):
                    submission.then(error)
                self._lost.clear()

"""The peer: an echo agent on the protocol's own Python library. It keeps and stores nothing."""

import asyncio  # noqa: TID251 - the peer is an asyncio program
from typing import Any, cast
from uuid import uuid4

from acp import PROTOCOL_VERSION, Agent, run_agent, update_agent_message_text
from acp.interfaces import Client
from acp.schema import InitializeResponse, NewSessionResponse, PromptResponse


class Echo:
    """Echoes; `/stream N` streams N chunks, `/sleep S` waits to be cancelled."""

    client: Client

    def __init__(self) -> None:
        self._stopped = asyncio.Event()

    def on_connect(self, conn: Client) -> None:
        """Keep the client to talk to."""
        self.client = conn

    async def initialize(self, protocol_version: int, **_: Any) -> InitializeResponse:
        """Agree on the version."""
        return InitializeResponse(protocol_version=PROTOCOL_VERSION)

    async def new_session(self, cwd: str, **_: Any) -> NewSessionResponse:
        """Give out an id."""
        return NewSessionResponse(session_id=uuid4().hex)

    async def prompt(self, prompt: list[Any], session_id: str, **_: Any) -> PromptResponse:
        """Answer a prompt."""
        text = str(prompt[0].text)
        command, _space, rest = text.partition(" ")
        if command == "/stream":
            for number in range(int(rest)):
                update = update_agent_message_text(f"chunk {number + 1}\n")
                await self.client.session_update(session_id, update)
        elif command == "/sleep":
            self._stopped.clear()
            await self._stopped.wait()
            return PromptResponse(stop_reason="cancelled")
        else:
            await self.client.session_update(session_id, update_agent_message_text(text))
        return PromptResponse(stop_reason="end_turn")

    async def cancel(self, session_id: str, **_: Any) -> None:
        """Stop waiting."""
        self._stopped.set()


if __name__ == "__main__":
    asyncio.run(run_agent(cast("Agent", Echo())))  # it has the methods that are called

"""A provider in memory: each try plays a script, and it knows what is still open."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import trio

from moorage_daemon.provider_settings import ProviderKind, ProviderSettings
from moorage_daemon.providers.failures import ProviderFailed
from moorage_daemon.providers.port import Ending, Finished, Piece, Request, Said


Act = Piece | ProviderFailed | trio.Event  # to say, to raise, to wait for
HELLO: Sequence[Act] = (Said("Hello."), Finished(Ending.DONE))
SETTINGS = ProviderSettings(ProviderKind.OPENAI, "http://127.0.0.1:9", "small")


@dataclass(eq=False)
class MemoryProvider:
    """Plays one script a try; the last one again and again."""

    settings: ProviderSettings = SETTINGS
    scripts: deque[Sequence[Act]] = field(default_factory=lambda: deque([HELLO]))
    requests: list[Request] = field(default_factory=list[Request])
    asked_at: list[float] = field(default_factory=list[float])
    open: int = 0

    def plays(self, *scripts: Sequence[Act]) -> None:
        """What it does from now on."""
        self.scripts = deque(scripts)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Piece]]:
        self.requests.append(request)
        self.asked_at.append(trio.current_time())
        script = self.scripts.popleft() if len(self.scripts) > 1 else self.scripts[0]
        self.open += 1
        try:
            async with aclosing(_play(script)) as pieces:
                yield pieces
        finally:
            self.open -= 1

    @property
    def said_to_it(self) -> list[list[tuple[str, str]]]:
        """The messages of each request, as role and text."""
        return [[(m.role.value, m.text) for m in request.messages] for request in self.requests]


async def _play(script: Sequence[Act]) -> AsyncGenerator[Piece]:
    for act in script:
        await trio.lowlevel.checkpoint()
        match act:
            case trio.Event():
                await act.wait()
            case ProviderFailed():
                raise act
            case _:
                yield act

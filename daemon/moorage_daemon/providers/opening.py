"""The configured providers, opened together for the daemon's life."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import assert_never

from moorage_daemon.provider_settings import ProviderKind, ProviderSettings
from moorage_daemon.providers.openai import open_openai
from moorage_daemon.providers.port import Provider


@asynccontextmanager
async def open_providers(
    settings: Mapping[str, ProviderSettings],
) -> AsyncGenerator[dict[str, Provider]]:
    """All of them, by name; raises `BadProvider`. Nothing is connected before it is asked."""
    async with AsyncExitStack() as stack:
        opened: dict[str, Provider] = {}
        for name, wanted in settings.items():
            match wanted.kind:
                case ProviderKind.OPENAI:
                    opened[name] = await stack.enter_async_context(open_openai(name, wanted))
                case _:
                    assert_never(wanted.kind)
        yield opened

"""Whatever a provider does wrong ends the turn with the right word, in time, and leaves nothing."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from moorage_daemon.agents.native import NativeAgent
from moorage_daemon.agents.port import AgentFailed, Prompt
from moorage_daemon.providers.opening import open_providers
from tests.daemon.agents.stage import HeardStage
from tests.daemon.providers.fake import FakeProvider, open_fake, refusing
from tests.daemon.providers.faults import FAULTS, SLOW_TO_SHOW, TRIED_AGAIN, Fault


BOUND = 60.0  # seconds on a busy machine, of which a fault's own deadline is a small part


@dataclass(frozen=True)
class Ended:
    """How a turn over a faulty provider ended: the failure's word, and what was said before."""

    code: str | None
    said: str


async def turn_over(fault: Fault, fake: FakeProvider, **settings: Any) -> Ended:
    """One turn; the fake provider has no connection left behind it."""
    if fault.play is None and "base_url" not in settings:
        settings["base_url"] = f"http://127.0.0.1:{await unused_port()}"
    wanted = fake.settings(**{**fault.settings, **settings})
    stage, code = HeardStage(), None
    async with open_providers({"one": wanted}) as providers:
        agent = NativeAgent(providers, "one")
        with trio.fail_after(BOUND):
            try:
                await agent.run(Prompt([], "hello"), stage)
            except AgentFailed as failure:
                code = failure.code
    await fake.until(lambda: fake.open == 0)
    return Ended(code, stage.text)


async def unused_port() -> int:
    """A port of this machine on which nobody listens."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_fault_ends_in_its_verdict_and_what_came_before_is_kept(fault: Fault) -> None:
    async with open_fake(*([fault.play] if fault.play else [])) as fake:
        ended = await turn_over(fault, fake)

    assert ended == Ended(fault.code, fault.said)


async def test_fault_that_takes_its_time_ends_in_its_verdict_too() -> None:
    found: dict[str, Ended] = {}

    async def show(fault: Fault) -> None:
        assert fault.play is not None
        async with open_fake(fault.play) as fake:
            found[fault.name] = await turn_over(fault, fake)

    slow = [*SLOW_TO_SHOW, *TRIED_AGAIN]
    async with trio.open_nursery() as nursery:
        for fault in slow:
            nursery.start_soon(show, fault)

    assert found == {fault.name: Ended(fault.code, fault.said) for fault in slow}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirect_to_another_host_is_not_followed(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", "sk-canary")
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(open_fake())
        there = f"http://localhost:{other.port}/v1/chat/completions"
        fake = await stack.enter_async_context(open_fake(refusing(status, location=there)))
        fault = Fault("redirects", "provider_protocol", fake.plays[0])

        ended = await turn_over(fault, fake, api_key_env="CANARY_KEY")

        assert ended.code == "provider_protocol"
        assert other.connections == 0


async def test_provider_without_the_right_certificate_gets_nothing() -> None:
    async with open_fake() as fake:
        address = fake.base_url.replace("http:", "https:")

        ended = await turn_over(FAULTS[0], fake, base_url=address)

        assert ended.code == "provider_unavailable"
        assert fake.visits == []

"""The native agent: our own loop over a provider. For now it only talks, and calls no tools.

It remembers nothing: each turn reads from the session's log what was said before, so a turn after
a park, a restart or a load knows what one before it would have known.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import trio

from moorage_daemon.agents.asking import call_of, room_in, window_of, wish_of
from moorage_daemon.agents.compaction import GONE, Teller, as_told, compacted
from moorage_daemon.agents.port import AgentFailed, Exchange, Prompt, Stage
from moorage_daemon.providers.failures import ProviderFailed
from moorage_daemon.providers.patience import Patience
from moorage_daemon.providers.port import (
    Ending,
    Finished,
    Message,
    Provider,
    Request,
    Role,
    Said,
    Thought,
)
from moorage_protocol.acp import AvailableCommand, StopReason


logger = logging.getLogger(__name__)


@dataclass(eq=False)
class NativeAgent:
    """Answers with the models of its providers; `default` is the provider if none is chosen."""

    providers: Mapping[str, Provider]
    default: str
    name: str = "native"
    commands: Sequence[AvailableCommand] = ()

    async def run(self, prompt: Prompt, stage: Stage) -> StopReason:
        """Have a model answer; a failure is tried again as long as nothing of it was said."""
        name = stage.overrides.model_provider or self.default
        provider = self.providers.get(name)
        if provider is None:
            raise AgentFailed("provider_unavailable", f"{name} is not configured any more")
        settings = provider.settings
        teller = Teller(name, provider, stage.overrides.model or settings.model)
        request = await _request(teller, prompt, stage)
        patience = Patience(settings.retry_seconds)
        while True:
            most = await stage.begin_answer(wish_of(request, settings))
            answer = await _listen(provider, replace(request, max_tokens=most), stage)
            if isinstance(answer.end, Finished):
                call = call_of(name, request.model, answer.end, settings, stage.config)
                if call is not None:
                    await stage.tell_usage(call)
                return _reason(answer.end)
            if not answer.has_begun:
                stage.drop_answer()
            wait = None if answer.has_begun else patience.wait_after(answer.end)
            _report(name, answer.end, wait)
            if wait is None:
                raise AgentFailed(answer.end.code, str(answer.end))
            await trio.sleep(wait)


# ---- what is asked


async def _request(teller: Teller, prompt: Prompt, stage: Stage) -> Request:
    told = stage.config.system_prompt or ""
    window = window_of(teller.provider.settings, stage.config)
    room = room_in(window) - len(told) - len(prompt.text)
    past = await compacted(await stage.history(room), room, stage, teller)
    summary = [Exchange(as_told(past.summary), "")] if past.summary else []
    gone = [Exchange(GONE, "")] if past.is_cut else []
    exchanges = [*summary, *gone, *past.exchanges, Exchange(prompt.text, "")]
    return Request(
        model=teller.model,
        messages=[*([Message(Role.SYSTEM, told)] if told else []), *_conversation(exchanges)],
        temperature=stage.overrides.temperature,
    )


def _conversation(exchanges: Iterable[Exchange]) -> list[Message]:
    """In turns: many models take nothing else, so prompts without an answer become one."""
    messages: list[Message] = []
    for exchange in exchanges:
        prompt = exchange.prompt
        if messages and messages[-1].role is Role.USER:
            prompt = f"{messages.pop().text}\n\n{prompt}"
        messages.append(Message(Role.USER, prompt))
        if exchange.answer:
            messages.append(Message(Role.ASSISTANT, exchange.answer))
    return messages


# ---- what is answered


@dataclass
class _Answer:
    """One try: how it ended, and whether anything was said before."""

    end: Finished | ProviderFailed
    has_begun: bool = False


async def _listen(provider: Provider, request: Request, stage: Stage) -> _Answer:
    """Pass on what a model says, as it says it."""
    has_begun, end = False, None
    try:
        async with provider.stream(request) as pieces:
            async for piece in pieces:
                match piece:
                    case Said(text):
                        has_begun = True
                        await stage.say(text)
                    case Thought(text):
                        has_begun = True
                        await stage.think(text)
                    case Finished():
                        end = piece  # and on, which leaves the connection to the next turn
                    case _:
                        assert_never(piece)
    except ProviderFailed as failure:
        return _Answer(failure, has_begun)
    assert end is not None, "an answer has an end"
    return _Answer(end, has_begun)


def _reason(end: Finished) -> StopReason:
    match end.ending:
        case Ending.DONE:
            return StopReason.END_TURN
        case Ending.TOO_LONG:
            return StopReason.MAX_TOKENS
        case Ending.REFUSED:
            return StopReason.REFUSAL
        case _:
            assert_never(end.ending)


def _report(name: str, failure: ProviderFailed, wait: float | None) -> None:
    fields = {"provider": name, "code": failure.code, "problem": str(failure)}
    if wait is None:
        logger.warning("a provider failed", extra=fields)
    else:
        logger.info("a provider is tried again", extra={**fields, "seconds": round(wait, 1)})

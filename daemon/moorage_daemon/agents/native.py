"""The native agent: our own loop over a provider. For now it only talks, and calls no tools.

It remembers nothing: each turn reads from the session's log what was said before, so a turn after
a park, a restart or a load knows what one before it would have known.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import trio

from moorage_daemon.agents.port import AgentFailed, Exchange, ModelCall, Prompt, Stage
from moorage_daemon.provider_settings import ProviderSettings
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
from moorage_protocol.config import SessionConfig
from moorage_protocol.moorage import TokenUsage


logger = logging.getLogger(__name__)

HISTORY = 200_000  # characters of earlier turns where nobody said what the model takes
CHARACTERS_A_TOKEN = 2  # between 4 of English and 1 of Chinese: rather too little history


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
        request = await _request(provider.settings, prompt, stage)
        patience = Patience(provider.settings.retry_seconds)
        while True:
            answer = await _listen(provider, request, stage)
            if isinstance(answer.end, Finished):
                await _tell_usage(name, request.model, answer.end, provider.settings, stage)
                return _reason(answer.end)
            wait = None if answer.has_begun else patience.wait_after(answer.end)
            _report(name, answer.end, wait)
            if wait is None:
                raise AgentFailed(answer.end.code, str(answer.end))
            await trio.sleep(wait)


# ---- what is asked


async def _request(settings: ProviderSettings, prompt: Prompt, stage: Stage) -> Request:
    told = stage.config.system_prompt or ""
    room = _room(_window(settings, stage.config)) - len(told) - len(prompt.text)
    exchanges = [*await stage.history(room), Exchange(prompt.text, "")]
    return Request(
        model=stage.overrides.model or settings.model,
        messages=[*([Message(Role.SYSTEM, told)] if told else []), *_conversation(exchanges)],
        temperature=stage.overrides.temperature,
    )


def _window(settings: ProviderSettings, config: SessionConfig) -> int | None:
    """Tokens of context: what the models take, or less if the session wants less."""
    known = [n for n in (settings.context_tokens, config.max_context_length) if n is not None]
    return min(known, default=None)


def _room(window: int | None) -> int:
    """Characters of what is asked, earlier turns and all."""
    return HISTORY if window is None else window * CHARACTERS_A_TOKEN


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


async def _tell_usage(
    name: str, model: str, end: Finished, settings: ProviderSettings, stage: Stage
) -> None:
    usage, price = end.usage, settings.prices.get(model)
    if usage is None:
        return
    cached = usage.cache_read_tokens
    call = ModelCall(
        provider=name,
        model=model,
        tokens=TokenUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=cached,
            reasoning_tokens=usage.reasoning_tokens,
        ),
        micros=None
        if price is None
        else price.micros(asked=usage.input_tokens, cached=cached, answered=usage.output_tokens),
        window=_window(settings, stage.config),
    )
    await stage.tell_usage(call)


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

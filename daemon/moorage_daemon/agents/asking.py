"""What asking a model takes: how much it may be told, and what an answer counts as."""

from moorage_daemon.agents.port import ModelCall
from moorage_daemon.grants.holds import Wish
from moorage_daemon.provider_settings import ProviderSettings
from moorage_daemon.providers.port import Finished, Request
from moorage_protocol.config import SessionConfig
from moorage_protocol.moorage import TokenUsage


HISTORY = 200_000  # characters of earlier turns where nobody said what the model takes
BYTES_A_TOKEN = 4  # about as many in any language: the letters of most others have several
TOKENS_A_MESSAGE = 4  # for who speaks, and where it ends
CHARACTERS_A_TOKEN = 2  # between 4 of English and 1 of Chinese: rather too little history


def window_of(settings: ProviderSettings, config: SessionConfig) -> int | None:
    """Tokens of context: what the models take, or less if the session wants less."""
    known = [n for n in (settings.context_tokens, config.max_context_length) if n is not None]
    return min(known, default=None)


def room_in(window: int | None) -> int:
    """Characters of what is asked, earlier turns and all."""
    return HISTORY if window is None else window * CHARACTERS_A_TOKEN


def wish_of(request: Request, settings: ProviderSettings) -> Wish:
    """What asking takes, more or less: models count tokens each in their own way."""
    told = sum(len(message.text.encode(errors="replace")) for message in request.messages)
    asked = -(-told // BYTES_A_TOKEN) + TOKENS_A_MESSAGE * len(request.messages)
    price = settings.prices.get(request.model)
    if price is None:
        return Wish(asked)
    return Wish(asked, price.micros(asked=asked, cached=0, answered=0), price.output)


def call_of(
    name: str, model: str, end: Finished, settings: ProviderSettings, config: SessionConfig
) -> ModelCall | None:
    """What an answer took; None where the provider did not tell."""
    usage, price = end.usage, settings.prices.get(model)
    if usage is None:
        return None
    cached = usage.cache_read_tokens
    return ModelCall(
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
        window=window_of(settings, config),
    )

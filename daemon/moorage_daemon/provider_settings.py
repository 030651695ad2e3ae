"""What a person may say about one model provider, `[providers.NAME]` of the settings file.

A key is named and never written here: by the environment variable or the file that holds it. It
goes only to the `base_url` beside it, and there only over TLS or to this very machine.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast
from urllib.parse import SplitResult, urlsplit


MAX_SECONDS = 86_400  # a day; who waits longer has no deadline
MAX_CONTEXT = 1_000_000_000  # tokens; beyond any model, and a slip of the finger
MAX_MODELS = 1000  # offered ones; more is no choice
MAX_PRICE = 100_000  # US dollars for a million tokens; more is a price for something else

_NAME = re.compile(r"(?!default\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # "default" says: none chosen
_MODEL = re.compile(r"(?!\s)[^\x00-\x1f\x7f]{1,200}(?<!\s)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_VISIBLE = re.compile(r"[\x21-\x7e]{1,2048}")


class BadProvider(Exception):
    """A provider that is not described as it has to be; one line says which key is wrong."""


class ProviderKind(StrEnum):
    """The language a provider speaks."""

    OPENAI = "openai"  # chat completions, which many servers beside OpenAI's speak


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens of a model; `cached` for those it knew, None: as `input`."""

    input: float
    output: float
    cached: float | None = None

    def micros(self, *, asked: int, cached: int, answered: int) -> int:
        """Millionths of a dollar for so many tokens; the cached ones are some of the asked."""
        known = self.input if self.cached is None else self.cached
        return round((asked - cached) * self.input + cached * known + answered * self.output)


def _no_prices() -> Mapping[str, Price]:
    return MappingProxyType({})


@dataclass(frozen=True)
class ProviderSettings:
    """One provider, checked. `base_url` has no trailing slash; at most one of the keys is set.

    `connect_seconds` is for a connection, `first_token_seconds` for all until the first piece of
    an answer, `silence_seconds` between two pieces and, from the start, between any two bytes;
    `retry_seconds` is how long trying again may begin. `context_tokens` is how much the models
    take, None where nobody said. `prices` go by model; what has none has no known cost.
    """

    kind: ProviderKind
    base_url: str
    model: str
    models: tuple[str, ...] = ()
    api_key_env: str | None = None
    api_key_file: Path | None = None
    context_tokens: int | None = None
    proxy: str | None = None
    connect_seconds: float = 10.0
    first_token_seconds: float = 300.0  # a local server may load its model first
    silence_seconds: float = 300.0
    retry_seconds: float = 30.0
    prices: Mapping[str, Price] = field(default_factory=_no_prices)

    @property
    def has_key(self) -> bool:
        """Whether requests carry a key."""
        return self.api_key_env is not None or self.api_key_file is not None

    @property
    def choices(self) -> tuple[str, ...]:
        """The models to choose from, the usual one first."""
        return tuple(dict.fromkeys((self.model, *self.models)))


def read_providers(value: object) -> dict[str, ProviderSettings]:
    """The table of all providers, by name; raises `BadProvider`."""
    if not isinstance(value, dict):
        raise BadProvider("providers must be tables: [providers.NAME]")
    table = cast("dict[str, object]", value)
    return {name: _read_provider(name, found) for name, found in table.items()}


def _read_provider(name: str, value: object) -> ProviderSettings:
    if not _NAME.fullmatch(name):
        allowed = "letters, digits, . - and _, and not default"
        raise BadProvider(f"providers.{name[:64]!r}: a name must be of {allowed}")
    if not isinstance(value, dict):
        raise BadProvider(f"providers.{name} must be a table")
    table = cast("dict[str, object]", value)
    chosen = {key: _value(name, key, found) for key, found in table.items()}
    for needed in ("kind", "base_url", "model"):
        if needed not in chosen:
            raise BadProvider(f"providers.{name}.{needed} is missing")
    provider = ProviderSettings(**cast("dict[str, Any]", chosen))
    _check_key(name, provider)
    return provider


def _value(name: str, key: str, value: object) -> object:
    rule = _RULES.get(key)
    if rule is None:
        known = ", ".join(_RULES)
        raise BadProvider(f"unknown key providers.{name}.{key[:64]!r}, there are: {known}")
    try:
        return rule.read(value)
    except (ValueError, RuntimeError) as error:  # RuntimeError: no home for ~
        raise BadProvider(f"providers.{name}.{key} must be {rule.allowed}") from error


def _check_key(name: str, provider: ProviderSettings) -> None:
    if provider.api_key_env is not None and provider.api_key_file is not None:
        raise BadProvider(f"providers.{name}: api_key_env and api_key_file exclude each other")
    if provider.has_key and not _is_private(urlsplit(provider.base_url), provider.proxy):
        raise BadProvider(
            f"providers.{name}.base_url must be https://, or on this machine and without a proxy, "
            "to be sent a key"
        )


def _is_private(url: SplitResult, proxy: str | None) -> bool:
    """Whether nobody on the way can read what is sent there."""
    if url.scheme == "https":
        return True
    if proxy is not None:
        return False
    if url.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.hostname or "").is_loopback
    except ValueError:
        return False


# ---- values


def _kind(value: object) -> ProviderKind:
    return ProviderKind(cast("str", value))  # raises ValueError for anything else


def _base_url(value: object) -> str:
    return _url(value).rstrip("/")


def _proxy(value: object) -> str:
    url = _url(value)
    if urlsplit(url).path not in ("", "/"):
        raise ValueError
    return url


def _url(value: object) -> str:
    """An address without a user, a query and whatever else could hide a secret."""
    text = _text(_VISIBLE)(value)
    url = urlsplit(text)
    _ = url.port  # raises ValueError for one that is none
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError
    if "@" in url.netloc or any(mark in text for mark in "?#\\"):
        raise ValueError
    return text


def _text(pattern: re.Pattern[str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError
        return value

    return read


def _models(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(cast("list[object]", value)) > MAX_MODELS:
        raise ValueError
    return tuple(map(_text(_MODEL), cast("list[object]", value)))


def _key_file(value: object) -> Path:
    """Absolute, as a daemon's working directory says nothing about what its user meant."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ValueError
    return path


def _context(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_CONTEXT:
        raise ValueError
    return value


def _prices(value: object) -> Mapping[str, Price]:
    if not isinstance(value, dict) or len(cast("dict[str, object]", value)) > MAX_MODELS:
        raise ValueError
    table = cast("dict[str, object]", value)
    model = _text(_MODEL)
    return MappingProxyType({model(name): _price(found) for name, found in table.items()})


def _price(value: object) -> Price:
    if not isinstance(value, dict):
        raise ValueError
    table = cast("dict[str, object]", value)
    if not {"input", "output"} <= table.keys() <= {"input", "output", "cached"}:
        raise ValueError
    return Price(**{name: _amount(found) for name, found in table.items()})


def _amount(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError
    if not 0 <= value <= MAX_PRICE:  # neither is true of not-a-number
        raise ValueError
    return float(value)


def _seconds(*, least: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError
        if not least <= value <= MAX_SECONDS:  # neither is true of not-a-number
            raise ValueError
        return float(value)

    return read


class _Rule(NamedTuple):
    """One key: what may stand there, in words and as code."""

    allowed: str
    read: Callable[[object], object]  # raises ValueError


_DEADLINE = _Rule(f"seconds from 0.01 to {MAX_SECONDS}", _seconds(least=0.01))

_RULES: Mapping[str, _Rule] = {
    "kind": _Rule('"openai"', _kind),
    "base_url": _Rule("an address like https://api.example.org/v1, without user or ?", _base_url),
    "model": _Rule("the name of a model, 1 to 200 characters", _text(_MODEL)),
    "models": _Rule("a list of names of models", _models),
    "api_key_env": _Rule("the name of an environment variable", _text(_VARIABLE)),
    "api_key_file": _Rule("the path of a file, absolute or beginning with ~/", _key_file),
    "context_tokens": _Rule("a number of tokens, what the models take", _context),
    "proxy": _Rule("the address of a proxy like http://127.0.0.1:3128, without user", _proxy),
    "connect_seconds": _DEADLINE,
    "first_token_seconds": _DEADLINE,
    "silence_seconds": _DEADLINE,
    "prices": _Rule(
        "tables of a model's input, output and maybe cached: US dollars for a million tokens",
        _prices,
    ),
    "retry_seconds": _Rule(f"seconds from 0 to {MAX_SECONDS}", _seconds(least=0)),
}

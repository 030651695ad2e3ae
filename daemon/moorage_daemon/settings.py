"""What a person may choose about the daemon, read once before anything else starts.

A setting is complete and checked or the daemon does not start: there is no default for
a value that was written wrongly, and no key that is read and ignored. Flags beat the
environment, which beats the file.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from platformdirs import user_config_path

from moorage_daemon.grant_settings import GrantSettings, read_grants, read_permissions
from moorage_daemon.provider_settings import BadProvider, ProviderSettings, read_providers
from moorage_daemon.retention import Retention, read_retention
from moorage_daemon.setting_tables import BadTable, whole
from moorage_protocol.config import Permissions
from moorage_protocol.rendezvous import STATE_DIR_VARIABLE, default_state_dir


CONFIG_VARIABLE = "MOORAGE_CONFIG"
DEFAULT = "default"  # where a value comes from that nobody chose

MAX_QUEUE = 1024  # prompts; each may be as large as a frame and is kept in memory
MAX_GRACE = 3600  # seconds; a stop that takes longer than an hour is none
MAX_FLOOR = 2**24  # mebibytes; more than any disk has
MAX_PORT = 65535
MAX_TIMEOUT = 31_536_000  # seconds; a year, beyond it 0 says what is meant

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@*]+")
_HOST = re.compile(r"[^\s/?#@*,]+")
_STORE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,31}):(?P<rest>[^\0\n]{0,4096})")
_ADDRESS = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


class SettingsError(Exception):
    """The daemon cannot start as it was told to; one line says where and what is allowed."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(source, problem)
        self.source = source  # a file, a flag or a variable
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.source}: {self.problem}"


class ClosePolicy(StrEnum):
    """Whether editors that put a thread away may end what runs in it (`session/close`)."""

    DETACH = "detach"  # not offered to them: editors send it when a tab is merely closed
    CLOSE = "close"  # offered to all clients


@dataclass(frozen=True)
class WebsocketAddress:
    """Where to listen; `host` is a loopback literal without brackets, port 0 is any."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True)
class StoreAddress:
    """Where sessions are kept: `scheme` says how, `rest` is its own; see `store.opening`."""

    scheme: str
    rest: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"


@dataclass(frozen=True)
class Flags:
    """What the command line said; None where it said nothing."""

    config: str | None = None
    state_dir: str | None = None
    websocket: str | None = None  # HOST:PORT, "" for --no-websocket


def _no_providers() -> Mapping[str, ProviderSettings]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Settings:
    """Every choice, checked. Of the timeouts 0 means none. Below `disk_floor_mb` of free space
    nothing new begins.

    `default_provider` is one of `providers`, and None only where there are none.
    """

    state_dir: Path
    default_agent: str = "scripted"
    store: StoreAddress = StoreAddress("sqlite", "")
    websocket: WebsocketAddress | None = WebsocketAddress("127.0.0.1", 0)
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    prompt_queue: int = 32
    grace_seconds: float = 5
    turn_timeout_seconds: float = 0
    permission_timeout_seconds: float = 0
    close_policy: ClosePolicy = ClosePolicy.DETACH
    providers: Mapping[str, ProviderSettings] = field(default_factory=_no_providers)
    default_provider: str | None = None
    grants: GrantSettings = field(default_factory=GrantSettings)
    permissions: Permissions | None = None
    retention: Retention = field(default_factory=Retention)
    disk_floor_mb: int = 64


@dataclass(frozen=True)
class Chosen:
    """Settings and how they came about.

    `file` is where was looked for them, `found` whether it is there. `origins` says where the
    values come from that somebody chose, by key, with a dot for each table.
    """

    settings: Settings
    file: Path
    found: bool
    origins: Mapping[str, str]

    @property
    def source(self) -> str:
        """The file, or that there is none."""
        return str(self.file) if self.found else f"the defaults, there is no {self.file}"


def load_settings(flags: Flags, env: Mapping[str, str] = os.environ) -> Settings:
    """Read flags, environment and file; raises SettingsError."""
    return choose_settings(flags, env).settings


def choose_settings(flags: Flags, env: Mapping[str, str] = os.environ) -> Chosen:
    """The same, with where each value comes from; raises SettingsError.

    A file that was named has to be there, the default one need not. Platformdirs, which
    knows where that is, looks at the process's own environment whatever `env` says.
    """
    for flag, path in (("--config", flags.config), ("--state-dir", flags.state_dir)):
        if path == "":
            raise SettingsError(flag, "must name a path")
    named = flags.config or env.get(CONFIG_VARIABLE)
    file = Path(named).absolute() if named else _default_file()
    written = _read_file(file, must_exist=bool(named))
    chosen = _checked(str(file), written or {})
    origins = dict.fromkeys(_keys(written or {}), str(file))
    if flags.websocket is not None:
        chosen["websocket"] = _value("--websocket", "websocket", flags.websocket)
        origins["websocket"] = "--websocket"
    state_dir = _state_dir(flags, env)
    if flags.state_dir or env.get(STATE_DIR_VARIABLE):
        origins["state_dir"] = "--state-dir" if flags.state_dir else STATE_DIR_VARIABLE
    settings = Settings(state_dir=state_dir, **chosen)
    return Chosen(settings, file, written is not None, origins)


def _state_dir(flags: Flags, env: Mapping[str, str]) -> Path:
    try:
        return Path(flags.state_dir or default_state_dir(env)).absolute()
    except LookupError as error:
        raise SettingsError("state directory", str(error.args[0])) from error


def _read_file(path: Path, *, must_exist: bool) -> dict[str, Any] | None:
    """Return what is written in the file; None where none has to be and none is."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        if must_exist:
            raise SettingsError(str(path), "there is no such file") from error
        return None
    except OSError as error:
        raise SettingsError(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(str(path), "is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:  # RecursionError: brackets, too deep
        raise SettingsError(str(path), f"is not TOML: {error}") from error


def _checked(source: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """What the written values mean, by key."""
    chosen = {key: _value(source, key, value) for key, value in written.items()}
    return chosen | _default_provider(source, chosen)


def _keys(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key that is written, those of tables with a dot."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _keys(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _default_provider(source: str, chosen: Mapping[str, Any]) -> dict[str, str]:
    """Which provider is meant where none is named; nobody guesses among several."""
    providers: Mapping[str, ProviderSettings] = chosen.get("providers", {})
    named: str | None = chosen.get("default_provider")
    if named is None and len(providers) == 1:
        named = next(iter(providers))
    if named is None and not providers:
        return {}
    if named is None or named not in providers:
        known = ", ".join(providers) or "none"
        raise SettingsError(source, f"default_provider must name a provider, there are: {known}")
    return {"default_provider": named}


def _default_file() -> Path:
    try:
        return user_config_path("moorage") / "config.toml"
    except RuntimeError as error:
        problem = f"no home directory: set HOME or {CONFIG_VARIABLE}"
        raise SettingsError("config.toml", problem) from error


def _value(source: str, key: str, value: object) -> object:
    """Return what a written value means; the value itself is never repeated in errors."""
    rule = _RULES.get(key)
    if rule is None:
        known = ", ".join(_RULES)
        raise SettingsError(source, f"unknown key {key[:64]!r}, there are: {known}")
    try:
        return rule.read(value)
    except (BadProvider, BadTable) as error:
        raise SettingsError(source, str(error)) from error
    except ValueError as error:
        raise SettingsError(source, f"{key} must be {rule.allowed}") from error


def _text(pattern: re.Pattern[str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError
        return value

    return read


def _texts(pattern: re.Pattern[str]) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError
        return tuple(map(_text(pattern), cast("list[object]", value)))

    return read


def _seconds(most: int) -> Callable[[object], float]:
    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError
        if not 0 <= value <= most:  # neither is true of not-a-number
            raise ValueError
        return value

    return read


def _providers(value: object) -> Mapping[str, ProviderSettings]:
    return MappingProxyType(read_providers(value))


def _queue_size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    if not 1 <= value <= MAX_QUEUE:
        raise ValueError
    return value


def _store(value: object) -> StoreAddress:
    match = _STORE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    return StoreAddress(match["scheme"], match["rest"])


def _websocket(value: object) -> WebsocketAddress | None:
    if value == "":
        return None
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match["port"]) > MAX_PORT:
        raise ValueError
    host = _loopback_6(match["six"]) if match["six"] else _loopback_4(match["host"])
    return WebsocketAddress(host, int(match["port"]))


def _loopback_6(host: str) -> str:
    """Only ::1: what an IPv4 address in IPv6 clothes reaches differs between systems."""
    if ipaddress.IPv6Address(host) != ipaddress.IPv6Address("::1"):
        raise ValueError
    return "::1"


def _loopback_4(host: str) -> str:
    """The name gets its number here, so that no hosts file has a say in what it is."""
    if host.lower() == "localhost":
        return "127.0.0.1"
    if not ipaddress.IPv4Address(host).is_loopback:
        raise ValueError
    return host


class _Rule(NamedTuple):
    """One key of the file: what may stand there, in words and as code."""

    allowed: str
    read: Callable[[Any], object]  # raises ValueError


_RULES = {
    "default_agent": _Rule("the name of an agent (a-z, 0-9, - and _)", _text(_NAME)),
    "store": _Rule('"sqlite:FILE", "file:DIR" or "memory:"', _store),
    "websocket": _Rule(
        'HOST:PORT with a loopback HOST (127.0.0.0/8, [::1] or localhost), or "" for none',
        _websocket,
    ),
    "allowed_origins": _Rule(
        "a list of origins like https://example.org, without path or *", _texts(_ORIGIN)
    ),
    "allowed_hosts": _Rule("a list of HOST or HOST:PORT, without path or *", _texts(_HOST)),
    "prompt_queue": _Rule(f"a whole number from 1 to {MAX_QUEUE}", _queue_size),
    "grace_seconds": _Rule(f"seconds from 0 to {MAX_GRACE}", _seconds(MAX_GRACE)),
    "turn_timeout_seconds": _Rule(
        f"seconds up to {MAX_TIMEOUT}, or 0 for none", _seconds(MAX_TIMEOUT)
    ),
    "permission_timeout_seconds": _Rule(
        f"seconds up to {MAX_TIMEOUT}, or 0 for none", _seconds(MAX_TIMEOUT)
    ),
    "close_policy": _Rule('"detach" or "close"', ClosePolicy),
    "default_provider": _Rule("the name of a configured provider", _text(_PROVIDER)),
    "providers": _Rule("tables: [providers.NAME]", _providers),
    "grants": _Rule("a table: [grants]", read_grants),
    "permissions": _Rule("a table: [permissions]", read_permissions),
    "retention": _Rule("a table: [retention]", read_retention),
    "disk_floor_mb": _Rule(
        f"mebibytes, a whole number up to {MAX_FLOOR}, or 0 for none", whole(MAX_FLOOR)
    ),
}

"""What a command was told: one dataclass for each command, without a trace of argparse."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bridge:
    """`acp`"""


@dataclass(frozen=True)
class DaemonStart:
    flags: tuple[str, ...]


@dataclass(frozen=True)
class DaemonRun:
    flags: tuple[str, ...]


@dataclass(frozen=True)
class DaemonStop:
    pass


@dataclass(frozen=True)
class DaemonStatus:
    pass


@dataclass(frozen=True)
class DaemonLogs:
    follow: bool
    lines: int


@dataclass(frozen=True)
class New:
    cwd: str
    mode: str


@dataclass(frozen=True)
class Consent:
    """What to say to permission questions; neither means a person is asked."""

    allow: bool
    deny: bool


@dataclass(frozen=True)
class Prompt:
    session: str | None
    text: str  # "-" stands for stdin
    consent: Consent
    on_busy: str
    timeout: float | None


@dataclass(frozen=True)
class Attach:
    session: str | None
    after: int | None  # None: from now
    watch: bool
    consent: Consent


@dataclass(frozen=True)
class Ls:
    everything: bool


@dataclass(frozen=True)
class Log:
    session: str | None
    kinds: tuple[str, ...]
    after: int


@dataclass(frozen=True)
class Cancel:
    session: str | None
    scope: str | None
    generation: int | None


@dataclass(frozen=True)
class Kill:
    sessions: tuple[str, ...]
    everything: bool
    reason: str | None


@dataclass(frozen=True)
class Configure:
    session: str | None
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Status:
    pass


Command = (
    Bridge
    | DaemonStart
    | DaemonRun
    | DaemonStop
    | DaemonStatus
    | DaemonLogs
    | New
    | Prompt
    | Attach
    | Ls
    | Log
    | Cancel
    | Kill
    | Configure
    | Status
)


@dataclass(frozen=True)
class Invocation:
    """A command, and what was said about all commands."""

    command: Command
    state_dir: str
    json: bool

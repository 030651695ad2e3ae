"""What a command was told: one dataclass for each command, without a trace of argparse."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Remote:
    """A daemon's address that was checked, and the file with what opens it."""

    address: str
    token_file: str | None


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
class ConfigCheck:
    flags: tuple[str, ...]  # of the daemon that is asked


@dataclass(frozen=True)
class ConfigShow:
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Doctor:
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Completion:
    shell: str


@dataclass(frozen=True)
class Limits:
    """What a session may do; None is no limit. `tools` are rules."""

    tools: tuple[str, ...] | None = None
    calls: int | None = None
    tokens: int | None = None
    micros: int | None = None  # millionths of a dollar
    seconds: float | None = None


@dataclass(frozen=True)
class New:
    cwd: str
    mode: str
    limits: Limits | None = None


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
class GrantList:
    agent: str | None


@dataclass(frozen=True)
class GrantShow:
    grant: str


@dataclass(frozen=True)
class GrantRaise:
    grant: str
    limits: Limits


@dataclass(frozen=True)
class GrantClose:
    grants: tuple[str, ...]


@dataclass(frozen=True)
class GrantGc:
    pass


@dataclass(frozen=True)
class Usage:
    session: str | None


@dataclass(frozen=True)
class Artifacts:
    session: str | None
    get: int | None  # the entry of the one whose bytes are wanted


@dataclass(frozen=True)
class Export:
    session: str | None
    file: str | None  # None: stdout


@dataclass(frozen=True)
class Import:
    file: str  # "-" stands for stdin
    keep_id: bool


@dataclass(frozen=True)
class Status:
    pass


@dataclass(frozen=True)
class StoreHealth:
    pass


@dataclass(frozen=True)
class StoreCheck:
    pass


@dataclass(frozen=True)
class StoreGc:
    pass


Command = (
    Bridge
    | StoreHealth
    | StoreCheck
    | StoreGc
    | DaemonStart
    | DaemonRun
    | DaemonStop
    | DaemonStatus
    | DaemonLogs
    | ConfigCheck
    | ConfigShow
    | Doctor
    | Completion
    | New
    | Prompt
    | Attach
    | Ls
    | Log
    | Cancel
    | Kill
    | Configure
    | GrantList
    | GrantShow
    | GrantRaise
    | GrantClose
    | GrantGc
    | Usage
    | Artifacts
    | Export
    | Import
    | Status
)

# About this machine: they have no use for a daemon's address.
LOCAL_COMMANDS = (
    DaemonStart,
    DaemonRun,
    DaemonStop,
    DaemonStatus,
    DaemonLogs,
    ConfigCheck,
    ConfigShow,
    Doctor,
    Completion,
)


@dataclass(frozen=True)
class Invocation:
    """A command, and what was said about all commands.

    The daemon is `remote` where one was named, else that of `state_dir`.
    """

    command: Command
    state_dir: str
    json: bool
    remote: Remote | None = None

"""What a command was told: one struct for each command, without a trace of argparse.

Structs and not dataclasses: those compile as much code as all the rest of a small command.
"""

from msgspec import Struct


class Remote(Struct, frozen=True):
    """A daemon's address that was checked, and the file with what opens it."""

    address: str
    token_file: str | None


class Bridge(Struct, frozen=True):
    """`acp`"""


class DaemonStart(Struct, frozen=True):
    flags: tuple[str, ...]


class DaemonRun(Struct, frozen=True):
    flags: tuple[str, ...]


class DaemonStop(Struct, frozen=True):
    pass


class DaemonStatus(Struct, frozen=True):
    pass


class DaemonLogs(Struct, frozen=True):
    follow: bool
    lines: int


class ConfigCheck(Struct, frozen=True):
    flags: tuple[str, ...]  # of the daemon that is asked


class ConfigShow(Struct, frozen=True):
    flags: tuple[str, ...]


class Doctor(Struct, frozen=True):
    flags: tuple[str, ...]


class Completion(Struct, frozen=True):
    shell: str


class Limits(Struct, frozen=True):
    """What a session may do; None is no limit. `tools` are rules."""

    tools: tuple[str, ...] | None = None
    calls: int | None = None
    tokens: int | None = None
    micros: int | None = None  # millionths of a dollar
    seconds: float | None = None


class New(Struct, frozen=True):
    cwd: str
    mode: str
    limits: Limits | None = None


class Consent(Struct, frozen=True):
    """What to say to permission questions; neither means a person is asked."""

    allow: bool
    deny: bool


class Prompt(Struct, frozen=True):
    session: str | None
    text: str  # "-" stands for stdin
    consent: Consent
    on_busy: str
    timeout: float | None
    secret_files: tuple[str, ...] = ()  # "-" likewise


class Attach(Struct, frozen=True):
    session: str | None
    after: int | None  # None: from now
    watch: bool
    consent: Consent


class Ls(Struct, frozen=True):
    everything: bool


class Log(Struct, frozen=True):
    session: str | None
    kinds: tuple[str, ...]
    after: int


class Cancel(Struct, frozen=True):
    session: str | None
    scope: str | None
    generation: int | None


class Pause(Struct, frozen=True):
    session: str | None


class Resume(Struct, frozen=True):
    session: str | None


class Kill(Struct, frozen=True):
    sessions: tuple[str, ...]
    everything: bool
    reason: str | None


class Delete(Struct, frozen=True):
    sessions: tuple[str, ...]
    is_sure: bool


class Configure(Struct, frozen=True):
    session: str | None
    settings: tuple[tuple[str, str], ...]


class GrantList(Struct, frozen=True):
    agent: str | None


class GrantShow(Struct, frozen=True):
    grant: str


class GrantRaise(Struct, frozen=True):
    grant: str
    limits: Limits


class GrantClose(Struct, frozen=True):
    grants: tuple[str, ...]


class GrantGc(Struct, frozen=True):
    pass


class Usage(Struct, frozen=True):
    session: str | None


class Artifacts(Struct, frozen=True):
    session: str | None
    get: int | None  # the entry of the one whose bytes are wanted


class Export(Struct, frozen=True):
    session: str | None
    file: str | None  # None: stdout


class Import(Struct, frozen=True):
    file: str  # "-" stands for stdin
    keep_id: bool
    a3s: str | None = None  # a session of that layout, of which `file` is the directory
    keep_allowed: bool = False


class Status(Struct, frozen=True):
    pass


class StoreHealth(Struct, frozen=True):
    pass


class StoreCheck(Struct, frozen=True):
    pass


class StoreGc(Struct, frozen=True):
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
    | Pause
    | Resume
    | Kill
    | Delete
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


class Invocation(Struct, frozen=True):
    """A command, and what was said about all commands.

    The daemon is `remote` where one was named, else that of `state_dir`.
    """

    command: Command
    state_dir: str
    json: bool
    remote: Remote | None = None

"""The Agent Client Protocol, version 1: the types that moorage speaks.

Field names and meaning are the protocol's; `_meta` is kept raw except where moorage has
something to say there. Decode what a peer sent with `lenient.decode`: unknown fields are
ignored, malformed optional ones count as absent.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType


PROTOCOL_VERSION = 1

M = TypeVar("M")


class Shape(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all types of the protocol: camelCase on the wire, defaults left out."""


class Meta(msgspec.Struct, Generic[M], frozen=True, omit_defaults=True):
    """A `_meta` object: moorage reads and writes its own key and leaves the others alone."""

    moorage: M | UnsetType = UNSET


class Empty(Shape, frozen=True):
    """An answer that says no more than that it was done."""


# ---- initialize


class Implementation(Shape, frozen=True):
    name: str
    version: str
    title: str | None = None


class FileSystemCapabilities(Shape, frozen=True):
    read_text_file: bool = False
    write_text_file: bool = False


class ClientSessionCapabilities(Shape, frozen=True):
    """What a client can show of a session; the rest of it is not used."""

    notices: Empty | None = None


class ClientCapabilities(Shape, frozen=True):
    fs: FileSystemCapabilities = FileSystemCapabilities()
    terminal: bool = False
    session: ClientSessionCapabilities = ClientSessionCapabilities()
    elicitation: Raw | UnsetType = UNSET


class PromptCapabilities(Shape, frozen=True):
    image: bool = False
    audio: bool = False
    embedded_context: bool = False


class SessionCapabilities(Shape, frozen=True):
    list: Empty | None = None
    delete: Empty | None = None
    resume: Empty | None = None
    close: Empty | None = None
    title: Empty | None = None
    status: Empty | None = None
    archive: Empty | None = None


class AgentCapabilities(Shape, frozen=True, omit_defaults=False):
    load_session: bool = False
    prompt_capabilities: PromptCapabilities = PromptCapabilities()
    session_capabilities: SessionCapabilities = SessionCapabilities()
    meta: Raw | UnsetType = msgspec.field(name="_meta", default=UNSET)


class AuthenticateParams(Shape, frozen=True):
    method_id: str


# ---- content


class Text(Shape, frozen=True, tag_field="type", tag="text", omit_defaults=True):
    text: str


class Image(Shape, frozen=True, tag_field="type", tag="image"):
    data: str
    mime_type: str
    uri: str | None = None


class Audio(Shape, frozen=True, tag_field="type", tag="audio"):
    data: str
    mime_type: str


class ResourceLink(Shape, frozen=True, tag_field="type", tag="resource_link"):
    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None


class Resource(Shape, frozen=True, tag_field="type", tag="resource"):
    resource: Raw


ContentBlock = Text | Image | Audio | ResourceLink | Resource


# ---- session updates


class ToolKind(StrEnum):
    READ = "read"
    EDIT = "edit"
    DELETE = "delete"
    MOVE = "move"
    SEARCH = "search"
    EXECUTE = "execute"
    THINK = "think"
    FETCH = "fetch"
    SWITCH_MODE = "switch_mode"
    OTHER = "other"


class ToolCallStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class ToolContent(Shape, frozen=True, tag_field="type", tag="content"):
    content: ContentBlock


class Diff(Shape, frozen=True, tag_field="type", tag="diff"):
    path: str
    new_text: str
    old_text: str | None = None


class TerminalContent(Shape, frozen=True, tag_field="type", tag="terminal"):
    terminal_id: str


ToolCallContent = ToolContent | Diff | TerminalContent


class ToolCallLocation(Shape, frozen=True):
    path: str
    line: int | None = None


class ToolCallFields(Shape, frozen=True):
    """What a tool call shows of itself; in a permission request and in its updates."""

    tool_call_id: str
    title: str | None = None
    name: str | None = None
    kind: ToolKind | None = None
    status: ToolCallStatus | None = None
    content: Sequence[ToolCallContent] | None = None
    locations: list[ToolCallLocation] | None = None
    raw_input: Raw | UnsetType = UNSET
    raw_output: Raw | UnsetType = UNSET


class Chunk(Shape, frozen=True):
    """One piece of a message; pieces with the same `message_id` belong together."""

    content: ContentBlock
    message_id: str | None = None


class UserMessageChunk(Chunk, frozen=True, tag_field="sessionUpdate", tag="user_message_chunk"):
    pass


class AgentMessageChunk(Chunk, frozen=True, tag_field="sessionUpdate", tag="agent_message_chunk"):
    pass


class AgentThoughtChunk(Chunk, frozen=True, tag_field="sessionUpdate", tag="agent_thought_chunk"):
    pass


class ToolCall(ToolCallFields, frozen=True, tag_field="sessionUpdate", tag="tool_call"):
    pass


class ToolCallUpdate(
    ToolCallFields, frozen=True, tag_field="sessionUpdate", tag="tool_call_update"
):
    pass


class PlanEntry(Shape, frozen=True):
    content: str
    priority: Literal["high", "medium", "low"]
    status: Literal["pending", "in_progress", "completed"]


class Plan(Shape, frozen=True, tag_field="sessionUpdate", tag="plan"):
    entries: list[PlanEntry]


class CommandInput(Shape, frozen=True):
    hint: str


class AvailableCommand(Shape, frozen=True):
    name: str
    description: str
    input: CommandInput | None = None


class AvailableCommandsUpdate(
    Shape, frozen=True, tag_field="sessionUpdate", tag="available_commands_update"
):
    available_commands: list[AvailableCommand]


class CurrentModeUpdate(Shape, frozen=True, tag_field="sessionUpdate", tag="current_mode_update"):
    current_mode_id: str


class ConfigOptionUpdate(Shape, frozen=True, tag_field="sessionUpdate", tag="config_option_update"):
    config_options: "list[ConfigOption]"


class SessionInfoUpdate(Shape, frozen=True, tag_field="sessionUpdate", tag="session_info_update"):
    title: str | UnsetType | None = UNSET
    updated_at: str | UnsetType | None = UNSET


class Cost(Shape, frozen=True, omit_defaults=False):
    """What a session cost so far."""

    amount: float
    currency: str = "USD"


class UsageUpdate(Shape, frozen=True, tag_field="sessionUpdate", tag="usage_update"):
    """Tokens in the model's context now, and how many fit."""

    used: int
    size: int
    cost: Cost | None = None


class Notice(Shape, frozen=True, tag_field="sessionUpdate", tag="notice"):
    """News for the user and no part of the history; only for clients that can show notices."""

    severity: Literal["info", "warning", "error"]
    title: str
    description: str | None = None


SessionUpdate = (
    UserMessageChunk
    | AgentMessageChunk
    | AgentThoughtChunk
    | ToolCall
    | ToolCallUpdate
    | Plan
    | AvailableCommandsUpdate
    | CurrentModeUpdate
    | ConfigOptionUpdate
    | SessionInfoUpdate
    | UsageUpdate
)


# ---- sessions


class SessionMode(Shape, frozen=True):
    id: str
    name: str
    description: str | None = None


class SessionModes(Shape, frozen=True, omit_defaults=False):
    """The modes a session may be in, and the one it is in."""

    current_mode_id: str
    available_modes: list[SessionMode]


class SelectOption(Shape, frozen=True):
    value: str
    name: str
    description: str | None = None


class ConfigOption(Shape, frozen=True, tag_field="type", tag="select"):
    """A choice a client may put before its user; the current value is always in the list."""

    id: str
    name: str
    current_value: str
    options: list[SelectOption]
    category: str | None = None
    description: str | None = None


class SetConfigOptionResult(Shape, frozen=True, omit_defaults=False):
    config_options: list[ConfigOption]


class SessionParams(Shape, frozen=True):
    """Params that name one session and no more."""

    session_id: str


class SetModeParams(SessionParams, frozen=True):
    mode_id: str


class EnvVariable(Shape, frozen=True):
    name: str
    value: str


class McpServer(Shape, frozen=True):
    """A server that speaks the Model Context Protocol on its standard input and output."""

    name: str
    command: str
    args: list[str] = []
    env: list[EnvVariable] = []


class CwdParams(Shape, frozen=True):
    cwd: str
    mcp_servers: list[Raw] | None = None
    additional_directories: list[str] | None = None


class LoadParams(CwdParams, frozen=True, kw_only=True):
    session_id: str


class ArchiveFilter(StrEnum):
    """Which sessions a list is of."""

    EXCLUDE = "exclude"
    INCLUDE = "include"
    ONLY = "only"


class ListParams(Shape, frozen=True):
    cwd: str | None = None
    cursor: str | None = None
    archived: str | None = None


class SessionStatus(StrEnum):
    """Whether a session is in memory, for whatever client."""

    OPEN = "open"
    SAVED = "saved"


class SessionStatusResult(Shape, frozen=True):
    status: SessionStatus


class SetTitleParams(SessionParams, frozen=True):
    title: str


class SetTitleResult(Shape, frozen=True):
    title: str


# ---- turns


class StopReason(StrEnum):
    """How a turn ended, in the closed set of the protocol."""

    END_TURN = "end_turn"
    MAX_TOKENS = "max_tokens"
    MAX_TURN_REQUESTS = "max_turn_requests"
    REFUSAL = "refusal"
    CANCELLED = "cancelled"


class Usage(Shape, frozen=True):
    """Tokens of one turn; what was cached or reasoned is counted in the others as well."""

    total_tokens: int
    input_tokens: int
    output_tokens: int
    thought_tokens: int = 0
    cached_read_tokens: int = 0
    cached_write_tokens: int = 0


class PermissionKind(StrEnum):
    ALLOW_ONCE = "allow_once"
    ALLOW_ALWAYS = "allow_always"
    REJECT_ONCE = "reject_once"
    REJECT_ALWAYS = "reject_always"


class PermissionOption(Shape, frozen=True):
    option_id: str
    name: str
    kind: PermissionKind


class PermissionParams(Shape, frozen=True):
    session_id: str
    tool_call: ToolCallFields
    options: list[PermissionOption]


class Selected(Shape, frozen=True, tag_field="outcome", tag="selected"):
    option_id: str


class Cancelled(Shape, frozen=True, tag_field="outcome", tag="cancelled"):
    pass


class PermissionResult(Shape, frozen=True):
    outcome: Selected | Cancelled


# ---- what a client lends


class ReadTextFileParams(SessionParams, frozen=True):
    path: str


class ReadTextFileResult(Shape, frozen=True):
    content: str


class WriteTextFileParams(SessionParams, frozen=True):
    path: str
    content: str


class CreateTerminalParams(SessionParams, frozen=True):
    command: str
    args: list[str]
    cwd: str
    output_byte_limit: int


class CreateTerminalResult(Shape, frozen=True):
    terminal_id: str


class TerminalParams(SessionParams, frozen=True):
    """Params that name one terminal and no more."""

    terminal_id: str


class TerminalExit(Shape, frozen=True):
    exit_code: int | None = None
    signal: str | None = None


class TerminalOutputResult(Shape, frozen=True):
    output: str
    truncated: bool = False
    exit_status: TerminalExit | None = None

"""All methods the daemon serves, and under which names."""

from typing import Any

from moorage_daemon.handlers import (
    config,
    filing,
    grants,
    logs,
    overrides,
    pausing,
    permissions,
    sessions,
    starting,
    transfer,
    turns,
    upkeep,
    views,
)
from moorage_daemon.handlers.port import Method
from moorage_protocol.acp import (
    AuthenticateParams,
    Empty,
    ListParams,
    LoadParams,
    SessionParams,
    SetModeParams,
    SetTitleParams,
)
from moorage_protocol.config import ConfigSetParams
from moorage_protocol.grants import (
    AgentParams,
    CreateParams,
    GrantListParams,
    GrantParams,
    RaiseParams,
    UseBatchParams,
    UseParams,
)
from moorage_protocol.moorage import (
    AttachParams,
    CancelParams,
    ConfigureParams,
    EntriesParams,
    InitializeParams,
    KillParams,
    LiveParams,
    NewParams,
    ReplayParams,
    RespondParams,
    TurnsParams,
    WithdrawParams,
)
from moorage_protocol.transfer import (
    ExportParams,
    ImportBeginParams,
    ImportFinishParams,
    ImportPartParams,
)
from moorage_protocol.views import ArtifactParams, PageParams


# The params differ from row to row: what is called is bound to its own shape in each.
METHODS: dict[str, Method[Any]] = {
    "initialize": Method(InitializeParams, starting.initialize, before_initialize=True),
    "authenticate": Method(AuthenticateParams, starting.authenticate),
    "session/new": Method(NewParams, sessions.new),
    "session/load": Method(ReplayParams, sessions.load),
    "session/resume": Method(LoadParams, sessions.resume),
    "session/list": Method(ListParams, sessions.list_sessions),
    "session/close": Method(SessionParams, sessions.close),
    "session/delete": Method(SessionParams, sessions.delete),
    "session/status": Method(SessionParams, filing.status),
    "session/set_title": Method(SetTitleParams, filing.set_title),
    "session/archive": Method(SessionParams, filing.archive),
    "session/unarchive": Method(SessionParams, filing.unarchive),
    "session/prompt": Method(turns.PromptRequest, turns.prompt),
    "session/cancel": Method(CancelParams, turns.cancel),
    "session/set_mode": Method(SetModeParams, overrides.set_mode),
    "session/set_config_option": Method(
        overrides.SetConfigOptionParams, overrides.set_config_option
    ),
    "session/kill": Method(KillParams, sessions.kill, is_ours=True),
    "session/configure": Method(ConfigureParams, overrides.configure, is_ours=True),
    "_moorage/session/kill": Method(KillParams, sessions.kill, is_ours=True),
    "_moorage/session/configure": Method(ConfigureParams, overrides.configure, is_ours=True),
    "_moorage/session/attach": Method(AttachParams, logs.attach, is_ours=True),
    "_moorage/session/detach": Method(SessionParams, logs.detach, is_ours=True),
    "_moorage/session/entries": Method(EntriesParams, logs.entries, is_ours=True),
    "_moorage/session/turns": Method(TurnsParams, turns.turns, is_ours=True),
    "_moorage/session/usage": Method(PageParams, views.usage, is_ours=True),
    "_moorage/session/traces": Method(PageParams, views.traces, is_ours=True),
    "_moorage/session/artifacts": Method(PageParams, views.artifacts, is_ours=True),
    "_moorage/artifact/get": Method(ArtifactParams, views.artifact, is_ours=True),
    "_moorage/session/reports": Method(PageParams, views.reports, is_ours=True),
    "_moorage/session/export": Method(ExportParams, transfer.export, is_ours=True),
    "_moorage/import/begin": Method(ImportBeginParams, transfer.begin, is_ours=True),
    "_moorage/import/part": Method(ImportPartParams, transfer.part, is_ours=True),
    "_moorage/import/finish": Method(ImportFinishParams, transfer.finish, is_ours=True),
    "_moorage/session/config/get": Method(SessionParams, config.get, is_ours=True),
    "_moorage/session/config/set": Method(ConfigSetParams, config.change, is_ours=True),
    "_moorage/session/withdraw": Method(WithdrawParams, turns.withdraw, is_ours=True),
    "_moorage/session/pause": Method(SessionParams, pausing.pause, is_ours=True),
    "_moorage/session/resume": Method(SessionParams, pausing.resume, is_ours=True),
    "_moorage/session/live": Method(LiveParams, sessions.live, is_ours=True),
    "_moorage/permission/respond": Method(RespondParams, permissions.respond, is_ours=True),
    "_moorage/grant/create": Method(CreateParams, grants.create, is_ours=True),
    "_moorage/grant/use": Method(UseParams, grants.use, is_ours=True),
    "_moorage/grant/useBatch": Method(UseBatchParams, grants.use_batch, is_ours=True),
    "_moorage/grant/get": Method(GrantParams, grants.get, is_ours=True),
    "_moorage/grant/raise": Method(RaiseParams, grants.raise_limits, is_ours=True),
    "_moorage/grant/close": Method(GrantParams, grants.close, is_ours=True),
    "_moorage/grant/closeForAgent": Method(AgentParams, grants.close_for_agent, is_ours=True),
    "_moorage/grant/list": Method(GrantListParams, grants.list_grants, is_ours=True),
    "_moorage/grant/gc": Method(Empty, grants.gc, is_ours=True),
    "_moorage/store/health": Method(Empty, upkeep.health, is_ours=True),
    "_moorage/store/check": Method(Empty, upkeep.check, is_ours=True),
    "_moorage/store/gc": Method(Empty, upkeep.gc, is_ours=True),
    "_moorage/status": Method(Empty, starting.status, is_ours=True),
    "_moorage/tui/list": Method(Empty, starting.tui_list, is_ours=True),
}

"""Getting acquainted: `initialize`, and what is said of the daemon and its clients."""

from collections import Counter

import msgspec

from moorage_daemon.handlers.port import Answer, Desk, Now, Peer
from moorage_daemon.identity import Identity
from moorage_protocol.acp import (
    PROTOCOL_VERSION,
    AgentCapabilities,
    AuthenticateParams,
    Empty,
    Implementation,
    Meta,
    PromptCapabilities,
    SessionCapabilities,
    Shape,
)
from moorage_protocol.errors import InvalidParams
from moorage_protocol.framing import MAX_FRAME_BYTES
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import (
    ClientHello,
    DaemonInfo,
    InitializeParams,
    InitializeResult,
    Limits,
    SessionCounts,
    StatusResult,
    StoreHealth,
    TuiRow,
    TuisResult,
    Welcome,
)


MAX_OPEN_REQUESTS = 64  # answers one connection may wait for besides its prompts
MAX_INSTANCE = 64  # characters; a UUID has 36

METHODS = [
    "session/kill",
    "session/configure",
    "session/cancel",
    "_moorage/session/attach",
    "_moorage/session/detach",
    "_moorage/session/entries",
    "_moorage/session/turns",
    "_moorage/session/usage",
    "_moorage/session/traces",
    "_moorage/session/artifacts",
    "_moorage/artifact/get",
    "_moorage/session/reports",
    "_moorage/session/export",
    "_moorage/import/begin",
    "_moorage/import/part",
    "_moorage/import/finish",
    "_moorage/session/config/get",
    "_moorage/session/config/set",
    "_moorage/session/withdraw",
    "_moorage/session/pause",
    "_moorage/session/resume",
    "_moorage/session/live",
    "_moorage/permission/respond",
    "_moorage/grant/create",
    "_moorage/grant/use",
    "_moorage/grant/useBatch",
    "_moorage/grant/get",
    "_moorage/grant/raise",
    "_moorage/grant/close",
    "_moorage/grant/closeForAgent",
    "_moorage/grant/list",
    "_moorage/grant/gc",
    "_moorage/store/health",
    "_moorage/store/check",
    "_moorage/store/gc",
    "_moorage/status",
    "_moorage/tui/list",
]


class _Advertised(Shape, frozen=True, omit_defaults=False):
    methods: list[str]
    secrets: bool = True


def initialize(desk: Desk, peer: Peer, params: InitializeParams) -> Answer:
    """Agree on the protocol and learn who is there (Agent Client Protocol, initialization)."""
    hello = params.meta.moorage if isinstance(params.meta.moorage, ClientHello) else None
    instance = hello.instance if hello is not None else None
    if instance is not None and not 1 <= len(instance) <= MAX_INSTANCE:
        raise InvalidParams(f"Invalid params: instance must have 1 to {MAX_INSTANCE} characters")
    identity = peer.introduce(params)
    is_new = hello is None or hello.tui_id is None
    welcome = Meta(moorage=_welcome(desk, identity, is_new=is_new))
    return Now(
        InitializeResult(
            protocol_version=PROTOCOL_VERSION,
            agent_capabilities=_capabilities(desk, identity),
            agent_info=Implementation(name="moorage", title="moorage", version=desk.about.version),
            meta=welcome if hello is not None else msgspec.UNSET,
        )
    )


def authenticate(desk: Desk, peer: Peer, params: AuthenticateParams) -> Answer:
    """Refuse: whoever could connect is authenticated, so no method is ever offered."""
    raise InvalidParams(
        "Invalid params: methodId: no method is offered, as who is connected is authenticated"
    )


def _capabilities(desk: Desk, identity: Identity) -> AgentCapabilities:
    advertised = {"moorage": _Advertised(methods=METHODS)}
    return AgentCapabilities(
        load_session=True,
        prompt_capabilities=PromptCapabilities(embedded_context=True),
        session_capabilities=SessionCapabilities(
            list=Empty(),
            delete=Empty(),
            resume=Empty(),
            close=Empty() if desk.close_is_served_to_all else None,
            title=Empty(),
            status=Empty(),
            archive=Empty(),
        ),
        meta=msgspec.Raw(encode(advertised)),
    )


def _welcome(desk: Desk, identity: Identity, *, is_new: bool) -> Welcome:
    about = desk.about
    return Welcome(
        tui_id=identity.tui,
        tui_secret=desk.tuis.secret(identity.tui) if is_new else None,
        principal=identity.principal.name,
        role=identity.principal.role,
        daemon=DaemonInfo(version=about.version, pid=about.pid, node=about.node),
        limits=Limits(max_frame_bytes=MAX_FRAME_BYTES, max_open_requests=MAX_OPEN_REQUESTS),
        methods=METHODS,
        secrets=True,
    )


def status(desk: Desk, peer: Peer, params: Empty) -> Answer:
    """What the daemon is doing, as far as it knows: whoever looks every second costs the disk
    nothing."""
    return Now(_status(desk))


def _status(desk: Desk) -> StatusResult:
    about, sessions = desk.about, desk.sessions
    committer = sessions.committer
    return StatusResult(
        version=about.version,
        pid=about.pid,
        node=about.node,
        started=about.started,
        store=StoreHealth(
            name=committer.store.name,
            healthy=committer.is_well,
            low=committer.low,
            damaged=len(sessions.damaged),
        ),
        sessions=SessionCounts(
            live=len(sessions.live),
            parked=len(sessions.parked),
            by_agent=sessions.count_by_agent(),
        ),
        connections=len(desk.connected()),
        turns=sessions.running_turns,
    )


def tui_list(desk: Desk, peer: Peer, params: Empty) -> Answer:
    """The TUIs that own sessions or are connected now."""
    mine = peer.identity.principal.name
    owned = Counter(row.owner for row in desk.sessions.rows(lambda head: head.principal == mine))
    connected = [identity for identity in desk.connected() if identity.principal.name == mine]
    tuis = {**dict.fromkeys(owned), **{identity.tui: identity for identity in connected}}
    counts = Counter(identity.tui for identity in connected)
    return Now(
        TuisResult(
            tuis=[
                TuiRow(
                    tui_id=tui,
                    name=identity.name if identity else None,
                    principal=mine,
                    connected=counts[tui],
                    transport=identity.transport if identity else None,
                    sessions=owned[tui],
                )
                for tui, identity in tuis.items()
            ]
        )
    )

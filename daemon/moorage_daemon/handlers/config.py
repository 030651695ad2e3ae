"""How a session is set up: its configuration shown, and changed as a whole or not at all.

A name is the session's title, labels and parent are the head's own: each is kept in one place and
shown here with the rest.
"""

from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import asdict, replace

from moorage_daemon.grants.policy import Policy
from moorage_daemon.grants.rules import BadRule
from moorage_daemon.handlers.port import Answer, AtSeq, Desk, Now, Peer
from moorage_daemon.identity import Verb
from moorage_daemon.store.model import Head
from moorage_protocol.acp import SessionParams
from moorage_protocol.config import (
    MAX_CONFIG,
    ConfigPatch,
    ConfigResult,
    ConfigSetParams,
    ConfigShown,
    Permissions,
    SessionConfig,
)
from moorage_protocol.errors import InvalidParams


DEFAULTS = SessionConfig()
MAX_DEPTH = 64  # generations of sessions; a deeper tree is a loop in somebody's program


def get(desk: Desk, peer: Peer, params: SessionParams) -> Answer:
    """The configuration as it is durable, of a killed session too."""
    principal = peer.identity.principal
    session = desk.sessions.find(params.session_id, principal, Verb.WATCH, killed=True)
    return Now(ConfigResult(config=_shown(desk, session.log.head)))


def change(desk: Desk, peer: Peer, params: ConfigSetParams) -> Answer:
    """Change the configuration; it holds from the next turn on, and is answered when durable."""
    access = peer.access_to(params.session_id)
    session = desk.sessions.find(params.session_id, peer.identity.principal, Verb.ACT, access)
    head, patch = session.head, params.config
    if isinstance(patch.parent, str):
        check_parent(desk, patch.parent, head.principal, child=head.id)
    before = SetUp(head.title, head.parent, head.labels, head.config)
    seq = session.record.set_up(patch, vars(patched(before, patch)), peer.identity.tui)
    return AtSeq(session.log, seq, ConfigResult(config=_shown(desk, session.head)))


def _shown(desk: Desk, head: Head) -> ConfigShown:
    return ConfigShown(
        name=head.title or "",
        workspace=head.cwd,
        storage=desk.sessions.committer.store.name,
        parent=head.parent,
        labels=head.labels,
        **asdict(head.config),
    )


def check_parent(desk: Desk, parent: str, principal: str, *, child: str | None = None) -> None:
    """Raise `InvalidParams` unless that is a session of the principal, and no child's child."""
    ancestor: str | None = parent
    for _ in range(MAX_DEPTH):
        if ancestor is None:
            return
        found = desk.sessions.head(ancestor)
        if found is None or found.principal != principal or ancestor == child:
            raise InvalidParams("Invalid params: config.parent must be another session of yours")
        ancestor = found.parent
    raise InvalidParams(f"Invalid params: config.parent has {MAX_DEPTH} ancestors already")


@dataclass(frozen=True)
class SetUp:
    """What a configuration is in a head."""

    title: str | None = None
    parent: str | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])
    config: SessionConfig = DEFAULTS


def patched(before: SetUp, patch: ConfigPatch) -> SetUp:
    """All of it after a patch; raises `InvalidParams` if that is too much to keep."""
    after = SetUp(
        title=before.title if patch.name is UNSET else _title(patch.name),
        parent=before.parent if patch.parent is UNSET else patch.parent,
        labels=before.labels if patch.labels is UNSET else patch.labels or {},
        config=_patched_config(before.config, patch),
    )
    if len(msgspec.json.encode((after.config, after.labels))) > MAX_CONFIG:
        raise InvalidParams(f"Invalid params: config takes more than {MAX_CONFIG} bytes")
    return after


def _title(name: str | None) -> str | None:
    return " ".join((name or "").split()) or None


def _patched_config(config: SessionConfig, patch: ConfigPatch) -> SessionConfig:
    changes: dict[str, object] = {}
    for name in SessionConfig.__struct_fields__:
        value = getattr(patch, name)
        if isinstance(value, Raw):
            value = None if bytes(value) == b"null" else Raw(bytes(value))  # not the whole frame
        if value is not UNSET:
            changes[name] = getattr(DEFAULTS, name) if value is None else value
    _check_rules(patch)
    return replace(config, **changes)


def _check_rules(patch: ConfigPatch) -> None:
    if isinstance(patch.permissions, Permissions):
        try:
            Policy(patch.permissions)
        except BadRule as problem:
            raise InvalidParams(f"Invalid params: config.permissions: {problem}") from problem

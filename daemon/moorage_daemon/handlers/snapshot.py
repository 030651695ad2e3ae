"""What a client is told of a session when it comes to it, beside the session's log.

These are no entries and carry no number: they say how things are, not what happened.
"""

from moorage_daemon.handlers.options import config_options
from moorage_daemon.handlers.port import Desk
from moorage_daemon.log.render import iso, snapshot_message
from moorage_daemon.session import Session
from moorage_protocol.acp import (
    AvailableCommandsUpdate,
    ConfigOptionUpdate,
    CurrentModeUpdate,
    SessionInfoUpdate,
)


def snapshot_updates(desk: Desk, session: Session) -> tuple[bytes, ...]:
    """The messages, to be sent behind the answer that lets the client in."""
    commands = desk.agent_named(session.head.agent).commands
    update = AvailableCommandsUpdate(available_commands=list(commands))
    return (snapshot_message(session.id, update),)


def info_updates(session: Session) -> tuple[bytes, ...]:
    """The title, for those who are not told the past, in which it was given."""
    head = session.log.head
    if head.title is None:
        return ()
    update = SessionInfoUpdate(title=head.title, updated_at=iso(head.updated_at))
    return (snapshot_message(session.id, update),)


def setting_updates(desk: Desk, session: Session) -> tuple[bytes, ...]:
    """Mode and options, where the answer itself does not tell them."""
    told = session.log.told
    options = config_options(told.posture, told.overrides, desk.providers)
    mode = CurrentModeUpdate(current_mode_id=told.posture)
    return (
        snapshot_message(session.id, mode),
        snapshot_message(session.id, ConfigOptionUpdate(config_options=options)),
    )

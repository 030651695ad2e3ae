"""The sessions that the stores are measured with."""

from moorage_daemon.store.model import Head
from moorage_protocol.moorage import Mode


def head_of(session: str) -> Head:
    """The head of a session like most."""
    return Head(
        id=session,
        principal="local",
        owner="tui",
        agent="scripted",
        mode=Mode.CODE,
        cwd="/work",
        created_at=1.0,
        updated_at=2.0,
    )

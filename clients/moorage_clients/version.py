"""A word for when the daemon is of another version than its client."""

from moorage_protocol import __version__


def difference(daemon: str, ours: str = __version__) -> str | None:
    """What to say of a daemon of that version, in one line; None if it is our own."""
    if daemon == ours:
        return None
    return (
        f"The daemon is of version {daemon}, this program of {ours}. "
        "Start it again: moorage daemon stop, moorage daemon start"
    )

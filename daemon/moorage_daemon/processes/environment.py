"""What a tool sees of the daemon's environment: what is named here, and nothing else.

A list of what to withhold would miss the next provider's key.
"""

from collections.abc import Mapping


INHERITED = frozenset(
    {
        "HOME",
        "LANG",
        "LOGNAME",
        "PATH",
        "SHELL",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
        # Every locale category by name: ssh servers let clients set any LC_ variable, so other
        # names that begin so carry other things.
        "LC_ADDRESS",
        "LC_ALL",
        "LC_COLLATE",
        "LC_CTYPE",
        "LC_IDENTIFICATION",
        "LC_MEASUREMENT",
        "LC_MESSAGES",
        "LC_MONETARY",
        "LC_NAME",
        "LC_NUMERIC",
        "LC_PAPER",
        "LC_TELEPHONE",
        "LC_TIME",
    }
)


def tool_environment(
    base: Mapping[str, str], *, ssh_auth_sock: str | None = None
) -> dict[str, str]:
    """Return the environment of a tool, taken from `base`, usually the daemon's own.

    The user's ssh agent is never inherited: a caller who was allowed to lend it names its socket.
    """
    environment = {name: value for name, value in base.items() if name in INHERITED}
    environment["TERM"] = "dumb"  # output goes to a log: no colours, no pager
    if ssh_auth_sock is not None:
        environment["SSH_AUTH_SOCK"] = ssh_auth_sock
    return environment

"""What a tool sees of an environment: what is named here, and nothing else.

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

LENDABLE = frozenset({"PATH", "SSH_AUTH_SOCK", "VIRTUAL_ENV"})


def tool_environment(
    base: Mapping[str, str], lent: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a tool, taken from `base`, usually the daemon's own.

    `lent` is what the person lent who started the session: their search path, virtual environment
    and ssh agent stand instead of the daemon's, also where they have none. The ssh agent is only
    ever lent, never inherited.
    """
    environment = {name: value for name, value in base.items() if name in INHERITED}
    environment["TERM"] = "dumb"  # output goes to a log: no colours, no pager
    if lent is not None:
        environment.pop("VIRTUAL_ENV", None)  # the daemon's does not go with another PATH
        environment |= {name: value for name, value in lent.items() if name in LENDABLE}
    return environment

"""What this terminal's environment lends to the tools of a session that is started in it.

A daemon that an editor started knows neither the search path that a shell sets up nor the ssh
agent of this login. Three variables are lent and no other: the rest is nobody's business.
"""

from collections.abc import Callable, Mapping

import msgspec

from moorage_protocol.moorage import ToolEnvironment


def lent(env: Mapping[str, str], note: Callable[[str], None]) -> ToolEnvironment:
    """What `env` lends; what cannot be lent is left out, and a note says so."""
    found: dict[str, str] = {}
    for name in ToolEnvironment.__struct_encode_fields__:
        if value := env.get(name):
            if _fits(name, value):
                found[name] = value
            else:
                note(f"{name} cannot be handed over: too long, not a path, or not text.")
    return msgspec.convert(found, ToolEnvironment)


def _fits(name: str, value: str) -> bool:
    try:
        value.encode()  # a surrogate stands for a byte that is no UTF-8
        msgspec.convert({name: value}, ToolEnvironment)
    except (UnicodeEncodeError, msgspec.ValidationError):
        return False
    return True

"""What a session may do, as the command line says it and as the daemon is told."""

from msgspec.structs import replace

from moorage_clients.cli.invocation import Limits
from moorage_clients.plain_text import plain
from moorage_protocol.grants import TOOLS, Budget, SessionGrant


MCP = "mcp__"  # how the name of a tool of an MCP server begins


def wished(limits: Limits | None) -> SessionGrant | None:
    """The grant that a new session is to stand on."""
    if limits is None:
        return None
    grant = SessionGrant(tools=limits.tools, budget=budget(limits))
    return grant if limits.seconds is None else replace(grant, time_limit_seconds=limits.seconds)


def doubtful_tools(limits: Limits | None) -> list[str]:
    """A warning for each rule about a tool that moorage does not have.

    No error: the agent or an MCP server may bring it.
    """
    rules = (limits.tools or ()) if limits is not None else ()
    names = dict.fromkeys(rule.partition("(")[0] for rule in rules)
    return [
        f"{plain(name)}: no tool of moorage has this name. {_meant(name)}"
        for name in names
        if name not in TOOLS and not name.startswith(MCP)
    ]


def _meant(name: str) -> str:
    for tool in TOOLS:
        if tool.casefold() == name.casefold():
            return f"{tool} has: case matters."
    return f"Those are: {', '.join(TOOLS)}, and {MCP}SERVER__TOOL."


def budget(limits: Limits) -> Budget:
    """The amounts of it."""
    return Budget(calls=limits.calls, tokens=limits.tokens, micros=limits.micros)

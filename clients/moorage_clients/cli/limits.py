"""What a session may do, as the command line says it and as the daemon is told."""

from msgspec.structs import replace

from moorage_clients.cli.invocation import Limits
from moorage_protocol.grants import Budget, SessionGrant


def wished(limits: Limits | None) -> SessionGrant | None:
    """The grant that a new session is to stand on."""
    if limits is None:
        return None
    grant = SessionGrant(tools=limits.tools, budget=budget(limits))
    return grant if limits.seconds is None else replace(grant, time_limit_seconds=limits.seconds)


def budget(limits: Limits) -> Budget:
    """The amounts of it."""
    return Budget(calls=limits.calls, tokens=limits.tokens, micros=limits.micros)

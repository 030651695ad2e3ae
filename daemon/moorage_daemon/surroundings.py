"""What every session has in common: the limits of the settings, and what the daemon lends it."""

from collections.abc import Callable

import msgspec
import trio

from moorage_daemon.agents.port import Agent
from moorage_daemon.conductor import Conductor
from moorage_daemon.store.port import Store
from moorage_daemon.turn.ground import Law


class Rules(msgspec.Struct, frozen=True):
    """Limits that the settings give every session; seconds, 0 is no limit."""

    prompt_queue: int = 32
    grace: float = 5.0
    turn_limit: float = 0.0
    ask_limit: float = 0.0


class Surroundings(msgspec.Struct, frozen=True):
    """What a session needs of the daemon. `sessions` is the nursery of conductors."""

    rules: Rules
    sessions: trio.Nursery
    agents: trio.Nursery
    store: Store
    agent_named: Callable[[str], Agent]
    law: Law

    @property
    def conductor(self) -> Conductor:
        """Who conducts turns."""
        return Conductor(self.agents, self.rules.grace)

"""The agent of a session whose agent is not configured any more.

Sessions outlive settings. Such a session is listed, loaded and read like any other; only its turns
fail, and it works again when its agent is back.
"""

from collections.abc import Mapping, Sequence

import msgspec

from moorage_daemon.agents.port import Agent, AgentFailed, Prompt, Stage
from moorage_protocol.acp import AvailableCommand, StopReason


class AbsentAgent(msgspec.Struct, frozen=True):
    """Fails every turn."""

    name: str
    commands: Sequence[AvailableCommand] = ()

    async def run(self, prompt: Prompt, stage: Stage) -> StopReason:
        """Fail: there is nobody to answer."""
        raise AgentFailed("agent_lost", f"the agent {self.name} is not configured")


def agent_named(agents: Mapping[str, Agent], name: str) -> Agent:
    """The configured agent of that name, or one that stands in for it."""
    return agents.get(name) or AbsentAgent(name)

"""Brings one turn from its start to a durable verdict.

The agent's body runs in the agents nursery and only emits; the conductor waits for its end, or
for a cause and the grace, and writes the verdict. They are two tasks because one task cannot
abandon itself: a body that does not stop is left behind with a closed stage, and its verdict says
`forced`.
"""

import logging

import msgspec
import trio
from msgspec.structs import replace

from moorage_daemon.agents.port import Agent, AgentFailed, StageClosed
from moorage_daemon.log.log import Log
from moorage_daemon.scrubbing import hide_in_logs
from moorage_daemon.store.model import VerdictBody
from moorage_daemon.turn.stage import TurnStage
from moorage_daemon.turn.turn import Turn
from moorage_daemon.turn.verdict import Abandoned, Caught, Raised, Returned, judge
from moorage_protocol.errors import StorageError
from moorage_protocol.moorage import Cause


logger = logging.getLogger(__name__)


class Conductor(msgspec.Struct, frozen=True):
    """What conducting takes beside the turn: `grace` is seconds, `agents` outlives the turn."""

    agents: trio.Nursery
    grace: float

    async def conduct(self, turn: Turn, stage: TurnStage, agent: Agent, log: Log) -> VerdictBody:
        """Run the turn; gives the verdict, which the caller writes."""
        self.agents.start_soon(_perform, turn, stage, agent, log)
        await _until_stirred(turn, stage)
        with trio.move_on_after(self.grace):
            await turn.ended.wait()
        if turn.ending is None:
            logger.warning("an agent did not stop within the grace", extra={"agent": agent.name})
            turn.end(Abandoned())
        stage.shut()
        assert turn.ending is not None
        request = turn.request
        return replace(judge(turn.ending, request, turn.tool_calls), usage=turn.usage)


async def _until_stirred(turn: Turn, stage: TurnStage) -> None:
    """Wait until the turn has ended or is to stop; its own limit and the grant's time see to it."""
    deadline = trio.current_time() + (turn.limit or float("inf"))
    while not turn.stirred.is_set():
        with trio.move_on_at(min(deadline, trio.current_time() + stage.seconds_left())):
            await turn.stirred.wait()
        if not turn.stirred.is_set():
            stage.look(Cause.TURN_TIMEOUT if trio.current_time() >= deadline else None)


async def _perform(turn: Turn, stage: TurnStage, agent: Agent, log: Log) -> None:
    """The body of a turn: whatever it does, it ends in an ending and harms no other turn."""
    hide_in_logs(stage.secrecy.text)
    try:
        with turn.cancel_scope:
            await log.until(turn.ready_at)
            turn.end(Returned(await agent.run(turn.prompt, stage)))
        if turn.cancel_scope.cancelled_caught:
            turn.end(Caught())
    except (StorageError, StageClosed, AgentFailed) as error:
        turn.end(Raised(_code(error)))
    except Exception:
        logger.exception("an agent broke", extra={"agent": agent.name})
        turn.end(Raised("internal"))


def _code(error: StorageError | StageClosed | AgentFailed) -> str:
    match error:
        case AgentFailed():
            return error.code
        case StorageError():
            return "storage"
        case StageClosed():
            return "agent_failed"

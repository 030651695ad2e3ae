"""The scripted agent: no model, no network, always the same answer.

It echoes its prompt, and understands a few commands that do what they say with the real tools in
the real workspace. So everything between a client and a process can be tried and tested without
an account anywhere.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import msgspec
import trio
from msgspec.structs import replace

from moorage_daemon.agents.port import AgentFailed, CallRefused, Prompt, Stage
from moorage_daemon.tools.port import Tool
from moorage_daemon.tools.read import Read, ReadArguments
from moorage_daemon.tools.run import Run, RunArguments
from moorage_daemon.tools.terminal import Terminal, TerminalArguments
from moorage_daemon.tools.write import Write, WriteArguments
from moorage_protocol.acp import AvailableCommand, CommandInput, PlanEntry, StopReason
from moorage_protocol.views import Check, CheckStatus, Verification


MAX_STREAM = 10_000_000  # chunks; more is a slip of the finger
MAX_PAUSE = 86_400.0  # seconds
SUBJECT = 200  # characters of a command that a report is about
STEPS = ("Look at the request", "Do what it asks", "Say what was done")

_PIECES = re.compile(r"\s*\S+\s*")

A = TypeVar("A", bound=msgspec.Struct)
Status = Literal["pending", "in_progress", "completed"]
Play = Callable[[str, Stage], Awaitable[None]]


class Command(msgspec.Struct, frozen=True):
    """One slash command: `hint` says what goes behind its name."""

    description: str
    hint: str
    play: Play


class ScriptedAgent:
    """Plays commands; anything else it echoes."""

    name = "scripted"

    def __init__(self) -> None:
        self._script = {
            "read": Command("Read a file of the workspace", "FILE", _read),
            "write": Command("Write a file of the workspace", "FILE TEXT", _write),
            "run": Command("Run a shell command, after asking", "COMMAND", _run),
            "terminal": Command("Run one in the client's terminal", "COMMAND", _terminal),
            "stream": Command("Stream N chunks, with a pause between", "N [SECONDS]", _stream),
            "sleep": Command("Wait", "SECONDS", _sleep),
            "ask": Command("Ask a question", "TEXT", _ask),
            "fail": Command("Fail the turn", "", _fail),
            "verify": Command("Run a command and report whether it passed", "COMMAND", _verify),
            "plan": Command("Show a plan and work through it", "", _plan),
        }

    @property
    def commands(self) -> list[AvailableCommand]:
        """The commands, for clients to offer."""
        return [
            AvailableCommand(
                name=name,
                description=command.description,
                input=CommandInput(hint=command.hint) if command.hint else None,
            )
            for name, command in self._script.items()
        ]

    async def run(self, prompt: Prompt, stage: Stage) -> StopReason:
        """Play the prompt."""
        name, _, rest = prompt.text.removeprefix("/").partition(" ")
        command = self._script.get(name) if prompt.text.startswith("/") else None
        try:
            if command is None:
                await _echo(prompt.text, stage)
            else:
                await command.play(rest.strip(), stage)
        except CallRefused as refusal:
            await stage.say(str(refusal))
        except _Usage:
            hint = command.hint if command is not None else ""
            await stage.say(f"Usage: /{name} {hint}".rstrip())
        return StopReason.END_TURN


class _Usage(Exception):
    """What stands behind a command is not what it takes."""


async def _echo(text: str, stage: Stage) -> None:
    for piece in _PIECES.findall(text):
        await stage.say(piece)


async def _read(rest: str, stage: Stage) -> None:
    if not rest:
        raise _Usage
    await _use(stage, Read(), ReadArguments(rest))


async def _run(rest: str, stage: Stage) -> None:
    if not rest:
        raise _Usage
    await _use(stage, Run(), RunArguments(rest))


async def _write(rest: str, stage: Stage) -> None:
    path, _, text = rest.partition(" ")
    if not path:
        raise _Usage
    await _use(stage, Write(), WriteArguments(path, text))


async def _terminal(rest: str, stage: Stage) -> None:
    if not rest:
        raise _Usage
    await _use(stage, Terminal(), TerminalArguments(rest))


async def _use(stage: Stage, tool: Tool[A], arguments: A) -> None:
    report = await stage.call(tool, arguments)
    await stage.say(report.text if report.ok else f"It failed: {report.text}")


async def _verify(rest: str, stage: Stage) -> None:
    if not rest:
        raise _Usage
    subject = rest if len(rest) <= SUBJECT else rest[: SUBJECT - 1] + "…"
    check = Check(id="command", kind="command", description=subject, required=True)
    try:
        done = await stage.call(Run(), RunArguments(rest))
    except CallRefused:
        await stage.report(Verification(subject=subject, checks=(check,)))
        raise
    status = CheckStatus.PASSED if done.ok else CheckStatus.FAILED
    await stage.report(Verification(subject=subject, checks=(replace(check, status=status),)))
    await stage.say("It passed." if done.ok else f"It failed: {done.text}")


async def _stream(rest: str, stage: Stage) -> None:
    count, _, pause = rest.partition(" ")
    total, seconds = _number(count, MAX_STREAM), _number(pause or "0", MAX_PAUSE)
    for number in range(1, int(total) + 1):
        await stage.say(f"chunk {number}\n")
        if seconds:
            await trio.sleep(seconds)


async def _sleep(rest: str, stage: Stage) -> None:
    seconds = _number(rest, MAX_PAUSE)
    await trio.sleep(seconds)
    await stage.say(f"Slept {rest} s.")


def _number(text: str, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        raise _Usage from None
    if not 0 <= number <= most:
        raise _Usage
    return number


async def _ask(rest: str, stage: Stage) -> None:
    if not rest:
        raise _Usage
    yes = await stage.ask(rest)
    await stage.say("You said yes." if yes else "You said no.")


async def _fail(rest: str, stage: Stage) -> None:
    await stage.say("Failing, as told.")
    raise AgentFailed("agent_failed", "the prompt said so")


async def _plan(rest: str, stage: Stage) -> None:
    for done in range(len(STEPS) + 1):
        await stage.plan([_step(index, done) for index in range(len(STEPS))])
    await stage.say("Done.")


def _step(index: int, done: int) -> PlanEntry:
    status: Status = "completed" if index < done else "pending"
    if index == done:
        status = "in_progress"
    return PlanEntry(content=STEPS[index], priority="medium", status=status)

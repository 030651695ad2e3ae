"""`moorage prompt`: one prompt, shown until its turn ends."""

import os
import signal
import sys
from contextlib import ExitStack

import trio

from moorage_clients.cli.choosing import choose
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Invocation, Prompt
from moorage_clients.cli.keyboard import Keyboard
from moorage_clients.cli.opening import run_with_client
from moorage_clients.cli.private_files import read_secrets
from moorage_clients.cli.questions import Questions
from moorage_clients.cli.screen import Screen
from moorage_clients.cli.transcript import JsonView, Transcript, View
from moorage_clients.client import Client
from moorage_clients.errors import ConnectionLost
from moorage_clients.nursery import open_quiet_nursery
from moorage_clients.plain_text import plain
from moorage_clients.turn import Turn
from moorage_protocol.acp import Meta, Text
from moorage_protocol.errors import RpcError, TurnFailed
from moorage_protocol.moorage import (
    Cause,
    OnBusy,
    Outcome,
    PromptResult,
    PromptVerdict,
    SecretText,
)


def prompt(invocation: Invocation, command: Prompt, screen: Screen) -> Exit:
    """Prompt a session and show its turn."""
    text = _read_stdin() if command.text == "-" else command.text
    if not text.strip():
        raise Failure(Exit.USAGE, "The prompt is empty.")
    blocks: list[Text | SecretText] = [Text(text=text)]
    blocks += [SecretText(text=secret) for secret in read_secrets(command.secret_files)]
    takes_stdin = "-" in (command.text, *command.secret_files)
    view: View = JsonView(screen) if invocation.json else Transcript(screen, prompts=False)
    with ExitStack() as stack:
        questions = Questions(
            command.consent, view, _person(stack, stdin_is_used=takes_stdin),
            "Answer it with: moorage attach, or prompt with --allow or --deny.",
        )  # fmt: skip

        async def work(client: Client) -> Exit:
            session = await choose(client, command.session)
            async with client.prompt(
                session,
                blocks,
                on_busy=OnBusy(command.on_busy),
                timeout_seconds=command.timeout,
            ) as turn:
                ended = await _follow(turn, view, questions, screen)
            screen.end()
            if invocation.json:
                _print_result(screen, turn, ended)
            return ended

        def told(loss: ConnectionLost | None) -> None:
            view.note(
                "The daemon is back." if loss is None else WAITING.format(plain(loss.problem))
            )

        return run_with_client(invocation, work, on_permission=questions, on_connection=told)


WAITING = "The connection is lost ({}). Waiting for the daemon."


def _read_stdin() -> str:
    return sys.stdin.buffer.read().decode(errors="replace")


def _person(stack: ExitStack, *, stdin_is_used: bool) -> Keyboard | None:
    """The person at the terminal, if there is one."""
    if not stdin_is_used and sys.stdin.isatty():
        return Keyboard(sys.stdin.fileno())
    if not stdin_is_used or not sys.stderr.isatty():
        return None
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    stack.callback(os.close, descriptor)
    return Keyboard(descriptor)


async def _follow(turn: Turn, view: View, questions: Questions, screen: Screen) -> Exit:
    """Show a turn to its end, or to the second Ctrl-C."""
    ended = Exit.DETACHED
    async with open_quiet_nursery() as nursery:
        nursery.start_soon(_watch_for_ctrl_c, turn, view, questions, screen, nursery.cancel_scope)
        try:
            async for message in turn:
                view.show(message)
            ended = exit_for(turn.result)
        except TurnFailed:
            ended = Exit.FAILED  # its verdict was shown
        except ConnectionLost as error:
            problem = f"The connection is lost ({error.problem}); the turn may go on."
            raise Failure(
                Exit.NO_DAEMON, problem, f"See it with: moorage attach {turn.session_id}"
            ) from error
        nursery.cancel_scope.cancel()
    return ended


async def _watch_for_ctrl_c(
    turn: Turn, view: View, questions: Questions, screen: Screen, command: trio.CancelScope
) -> None:
    with trio.open_signal_receiver(signal.SIGINT) as presses:
        await anext(presses)
        screen.was_interrupted()
        view.note("Cancelling the turn. Ctrl-C again leaves it running and goes.")
        async with open_quiet_nursery() as nursery:
            nursery.start_soon(_cancel, turn, view)
            await anext(presses)
            screen.was_interrupted()
            questions.is_leaving = True
            view.note(f"The turn runs on. See it with: moorage attach {turn.session_id}")
            nursery.cancel_scope.cancel()
        command.cancel()


async def _cancel(turn: Turn, view: View) -> None:
    try:
        await turn.cancel()
    except RpcError as error:
        view.note(f"The turn cannot be cancelled: {plain(error.message)}")
    except ConnectionLost:
        pass  # whoever shows the turn says so


def exit_for(result: PromptResult) -> Exit:
    """The exit code that says how a turn ended."""
    verdict = _verdict(result)
    if verdict is None:
        return Exit.CANCELLED if result.stop_reason == "cancelled" else Exit.OK
    if verdict.cause is Cause.ADMIN_KILL:
        return Exit.KILLED
    ends = {Outcome.CANCELLED: Exit.CANCELLED, Outcome.REFUSED: Exit.FAILED}
    return ends.get(verdict.outcome, Exit.OK)


def _print_result(screen: Screen, turn: Turn, ended: Exit) -> None:
    """The last line of the stream; without a result where nobody waited for it."""
    result: dict[str, object] = {"type": "result", "exit": int(ended)}
    if ended not in (Exit.DETACHED, Exit.FAILED):
        result["stopReason"] = turn.result.stop_reason
        result["verdict"] = _verdict(turn.result)
    screen.document({**result, "sessionId": turn.session_id, "generation": turn.generation})


def _verdict(result: PromptResult) -> PromptVerdict | None:
    ours = result.meta.moorage if isinstance(result.meta, Meta) else None
    return ours if isinstance(ours, PromptVerdict) else None

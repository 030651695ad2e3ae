"""`moorage attach`: follow a session, and prompt it line by line.

A line is a prompt, unless a question is open and the line is an answer to one. The output streams
on meanwhile: there is no screen to keep in order, so this works over any terminal and any pipe.
"""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from moorage_clients.attachment import Attachment
from moorage_clients.cli.choosing import choose
from moorage_clients.cli.colour import Style
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Attach, Invocation
from moorage_clients.cli.keyboard import Keyboard
from moorage_clients.cli.opening import run_with_client
from moorage_clients.cli.questions import Questions, word
from moorage_clients.cli.screen import Screen
from moorage_clients.cli.transcript import JsonView, Transcript, View
from moorage_clients.client import Client
from moorage_clients.errors import CannotConnect, ConnectionLost
from moorage_clients.messages import Admission, LogEntry, Message
from moorage_clients.nursery import open_quiet_nursery
from moorage_clients.plain_text import plain
from moorage_clients.submissions import Outcome
from moorage_protocol.errors import InvalidParams, NotFound, RpcError, TurnFailed
from moorage_protocol.moorage import Access, DetachReason, RunningTurn, Snapshot, State


QUIT = "/quit"
MAX_PROMPTS = 32  # typed ahead and not answered; the daemon's queue takes no more by default
RETURN_PATIENCE = 60.0  # seconds for a daemon that went away to come back
RETURN_PAUSE = 0.25  # seconds between two tries

HELP = f"Attached. Type a prompt; {QUIT} or Ctrl-D leaves, Ctrl-C cancels what runs."


def attach(invocation: Invocation, command: Attach, screen: Screen) -> Exit:
    """Follow a session until it ends or the person leaves."""
    view: View = JsonView(screen) if invocation.json else Transcript(screen, asks=command.watch)
    answers, heard = trio.open_memory_channel[str](0)

    is_person = sys.stdin.isatty() and not command.watch
    questions = Questions(
        command.consent, view, Answers(heard) if is_person else None,
        "Answer it with moorage attach in a terminal, or with --allow or --deny.",
    )  # fmt: skip
    access = Access.OBSERVER if command.watch else Access.CONTROLLER

    async def work(client: Client) -> Exit:
        session = await choose(client, command.session)
        async with client.attach(session, command.after, access=access) as attachment:
            is_typing = is_person and not invocation.json
            seat = Seat(
                client, attachment, view, questions, answers, screen, not command.watch, is_typing
            )
            if is_typing:
                screen.note(HELP)
            try:
                return await seat.follow()
            finally:
                screen.end()

    asked = None if command.watch else questions
    return run_with_client(invocation, work, on_permission=asked, returns=False)


@dataclass(frozen=True)
class Answers:
    """The lines that are answers to the open question: none that was typed before it."""

    heard: trio.MemoryReceiveChannel[str]

    def forget(self) -> None:
        """There is nothing to forget: the channel holds nothing."""

    async def line(self) -> str | None:
        """The next one."""
        return await self.heard.receive()


Leave = Callable[[Exit], None]


@dataclass(eq=False)
class Seat:
    """A person, or a script, in front of one session.

    They act on it unless they only look; `is_typing` is a person whose terminal shows what they
    type.
    """

    client: Client
    attachment: Attachment
    view: View
    questions: Questions
    answers: trio.MemorySendChannel[str]
    screen: Screen
    acts: bool
    is_typing: bool
    _running: int | None = None  # the generation of the turn that runs
    _turns: set[int] = field(default_factory=set[int])  # generations that run or wait
    _sent: int = 0  # prompts of ours that are no turn yet, as far as was shown
    _prompts: int = 0  # ours, not answered
    _news: trio.Event = field(default_factory=trio.Event)

    async def follow(self) -> Exit:
        """Show the session until it ends or the person leaves."""
        ended = Exit.OK
        async with open_quiet_nursery() as nursery:

            def leave(code: Exit) -> None:
                nonlocal ended
                ended = code
                self.questions.is_leaving = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(self._watch_for_ctrl_c, nursery, leave)
            if self.acts:
                nursery.start_soon(self._read_lines, leave)
            leave(await self._show_all())
        return ended

    # ---- what comes

    async def _show_all(self) -> Exit:
        self._take_state(self.attachment.snapshot)
        self._say_that_it_is_paused()
        self._invite()
        while True:
            try:
                async for message in self.attachment:
                    self._note_turn(message)
                    self.view.show(message)
                    if message.seq == self.attachment.snapshot.seq:
                        self._say_that_it_is_paused()
                        self._tell()
                    self._invite()
                return self._ended()
            except ConnectionLost as error:
                self.view.note(f"The connection is lost ({error.problem}). Waiting for the daemon.")
                await self._return()

    def _take_state(self, snapshot: Snapshot) -> None:
        turn = snapshot.turn
        self._running = turn.generation if isinstance(turn, RunningTurn) else None
        self._turns = {queued.generation for queued in snapshot.queue}
        if self._running is not None:
            self._turns.add(self._running)
        self._sent = 0

    def _note_turn(self, message: Message) -> None:
        """What the snapshot knew already is history: it says nothing of what runs now."""
        if not isinstance(message, LogEntry) or message.seq <= self.attachment.snapshot.seq:
            return
        match message.kind, message.generation:
            case "prompt", int(generation):
                self._turns.add(generation)
                with suppress(InvalidParams):  # of a newer daemon
                    is_ours = message.read(Admission).by == self.client.welcome.tui_id
                    self._sent -= is_ours and self._sent > 0
            case "begin", generation:
                self._running = generation
            case "verdict", int(generation):
                self._running = None
                self._turns.discard(generation)
            case _:
                pass

    def _invite(self) -> None:
        """Show a person that it is on them, once all is told and nothing runs."""
        is_told = (self.attachment.seq or 0) >= self.attachment.snapshot.seq
        if self.is_typing and is_told and not self._turns and not self._sent:
            self.screen.invite()

    def _say_that_it_is_paused(self) -> None:
        """Before anything is typed, and below the history: the end of that is what is looked at."""
        snapshot = self.attachment.snapshot
        if snapshot.state is State.PAUSED and (self.attachment.seq or 0) >= snapshot.seq:
            resume = f"moorage resume {self.attachment.session_id}"
            self.view.note(f"The session is paused, prompts wait: {resume}", Style.CAREFUL)

    def _ended(self) -> Exit:
        if self.attachment.detached is DetachReason.KILLED:
            self.view.note("The session was killed.")
            return Exit.KILLED
        if self.attachment.detached is DetachReason.SHUTDOWN:
            self.view.note("The daemon is stopping.")
            return Exit.NO_DAEMON
        self.view.note("The session was closed.")
        return Exit.OK

    async def _return(self) -> None:
        with trio.move_on_after(RETURN_PATIENCE):
            while True:
                await trio.sleep(RETURN_PAUSE)
                try:
                    self._take_state(await self.attachment.reattach())
                except (CannotConnect, ConnectionLost):
                    continue
                except NotFound:
                    raise Failure(Exit.KILLED, "The session is gone.") from None
                self.view.note("The daemon is back.")
                self._say_that_it_is_paused()
                self._invite()
                return
        raise Failure(Exit.NO_DAEMON, "The daemon did not come back.", "See: moorage daemon logs")

    # ---- what is said

    async def _read_lines(self, leave: Leave) -> None:
        keyboard = Keyboard(sys.stdin.fileno())
        while (line := await keyboard.line()) is not None and line.strip() != QUIT:
            if self.is_typing:
                self.screen.was_typed_on()
            if self.questions.is_asking and word(line) is not None:
                with suppress(trio.WouldBlock):  # settled in this very moment
                    self.answers.send_nowait(line)
            elif line.strip():
                await self._prompt(line)  # one behind the other, as typed
            else:
                self._invite()
        if line is None and not sys.stdin.isatty():
            await self._nothing_left()
        leave(Exit.OK)

    async def _nothing_left(self) -> None:
        """Wait until a script has seen what there was before it, and its prompts to their end."""
        while self._prompts or (self.attachment.seq or 0) < self.attachment.snapshot.seq:
            await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def _prompt(self, text: str) -> None:
        while self._prompts >= MAX_PROMPTS:
            await self._news.wait()
        self._prompts += 1  # before it is sent: its turn may be told before the sending returns
        self._sent += 1
        try:
            await self.client.submit(self.attachment.session_id, text, self._take_answer)
        except ConnectionLost:
            self._prompts -= 1  # said by whoever shows the session

    def _take_answer(self, outcome: Outcome) -> None:
        """How the turn ended is in the log; only a prompt that became no turn has to be told."""
        if isinstance(outcome, RpcError) and not isinstance(outcome, TurnFailed):
            self.view.note(f"Not taken: {plain(outcome.message)}")
            self._sent -= self._sent > 0
            self._invite()
        self._prompts -= 1
        self._tell()

    async def _watch_for_ctrl_c(self, nursery: trio.Nursery, leave: Leave) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as presses:
            cancelled: int | None = None
            async for _ in presses:
                self.screen.was_interrupted()
                if not self.acts or self._running in (None, cancelled):
                    break
                cancelled = self._running
                self.view.note("Cancelling the turn. Ctrl-C again leaves it running and goes.")
                nursery.start_soon(self._cancel, cancelled)
        leave(Exit.DETACHED)

    async def _cancel(self, generation: int | None) -> None:
        with suppress(ConnectionLost):  # said by whoever shows the session
            await self.client.cancel(self.attachment.session_id, generation=generation)

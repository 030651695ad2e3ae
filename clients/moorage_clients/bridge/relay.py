"""`moorage acp`: an editor's stdio on one side, the daemon's unix socket on the other.

Editors take a program that ends for a broken agent and offer no way back, so the relay ends when
its editor does and at no other time: daemons may come and go behind it. It writes nothing to
stderr, which editors show as an error of the agent. Nothing here ever blocks but `poll`, and what
is held in memory is bounded in both directions: a side that does not read is not read from.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Protocol

from moorage_clients.bridge.exchange import Exchange
from moorage_clients.bridge.framing import Headers, Lines, Refused, framing_of
from moorage_clients.bridge.hello import IdentityFiles
from moorage_clients.bridge.launch import StateDir
from moorage_clients.bridge.outbox import Discarded
from moorage_clients.bridge.search import NEVER, Finder, Search


READ_BYTES = 64 * 1024  # at once; a pipe holds no more
PIPE_BYTES = 4096  # PIPE_BUF on Linux: a pipe that polls as writable takes so much without blocking
HIGH_WATER = 2**20  # bytes on their way to one side; then the other side is not read
OVERFULL = 4 * HIGH_WATER  # bytes; an editor that reads nothing may still cancel, up to here

EXIT_PATIENCE = 1.5  # seconds for answers still due when the editor has closed its end

GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Poll(Protocol):
    """What waits: `select.poll`, or a test's own."""

    def register(self, fd: int | socket.socket, eventmask: int, /) -> None:
        """Wait for these events of a file, too."""
        ...

    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
        """Wait for milliseconds, None for ever; gives what is ready."""
        ...


class Relay:
    """One editor's stdio, and the connection to the daemon while there is one."""

    def __init__(
        self,
        exchange: Exchange,
        search: Search[socket.socket],
        editor_in: int,
        editor_out: int,
        clock: Callable[[], float] = time.monotonic,
        poll: Callable[[], Poll] = select.poll,
    ) -> None:
        self._exchange = exchange
        self._search = search
        self._editor_in, self._editor_out = editor_in, editor_out
        self._clock, self._poll = clock, poll
        self._from_editor: Lines | Headers | None = None  # as the first byte will decide
        self._from_daemon = Lines()
        self._daemon: socket.socket | None = None
        self._has_heard = False  # anything over the present connection
        self._is_deaf = False  # the daemon takes nothing more; what it said may still be unread
        self._is_reading = self._is_writing = True  # what the editor sends, what it is sent
        self._exit_at = NEVER  # set when either end of the editor is closed

    def run(self) -> None:
        """Relay until the editor is gone."""
        try:
            while not self._is_over():
                self._see_to_a_daemon()
                self._turn()
        finally:
            self._search.close()
            if self._daemon is not None:
                self._daemon.close()

    def _is_over(self) -> bool:
        if self._clock() >= self._exit_at:
            return True
        if self._is_reading:
            return False
        exchange = self._exchange
        return exchange.is_settled if self._is_writing else exchange.is_delivered

    # ---- having a daemon

    def _see_to_a_daemon(self) -> None:
        search, exchange, now = self._search, self._exchange, self._clock()
        if self._daemon is None and now >= search.look_at:
            self._daemon = search.look(now, is_wanted=exchange.wants_daemon)
            if self._daemon is not None:
                self._from_daemon = Lines()
                self._has_heard = self._is_deaf = False
                exchange.opened()
        # An editor that is behind with what it was sent waits for no daemon: this one waits for it.
        is_behind = exchange.to_editor.size >= HIGH_WATER
        search.wait(now, is_waiting=exchange.wants_daemon and not is_behind)
        if now >= search.patience_ends:
            self._lose_daemon()  # if there is one, it does not even say hello
            exchange.give_up(search.problem)
            search.wait(now, is_waiting=False)

    def _lose_daemon(self) -> None:
        if self._daemon is None:
            return
        self._daemon.close()
        self._daemon = None
        self._search.lost(self._clock(), had_heard=self._has_heard)
        self._exchange.lost()

    # ---- one turn of the loop

    def _turn(self) -> None:
        exchange, poll = self._exchange, self._poll()
        if self._has_room_for_editor():
            poll.register(self._editor_in, select.POLLIN)
        if self._is_writing:
            poll.register(self._editor_out, select.POLLOUT if exchange.to_editor else 0)
        daemon = self._daemon
        if daemon is not None:
            reads = select.POLLIN if exchange.to_editor.size < HIGH_WATER else 0
            writes = select.POLLOUT if exchange.to_daemon and not self._is_deaf else 0
            poll.register(daemon, reads | writes)
        for descriptor, event in poll.poll(self._milliseconds()):
            if descriptor == self._editor_out:
                self._write_editor(event)
            elif descriptor == self._editor_in:
                self._read_editor()
            elif daemon is not None and daemon is self._daemon:
                self._serve_daemon(daemon, event)

    def _has_room_for_editor(self) -> bool:
        exchange = self._exchange
        has_room = exchange.to_daemon.size < HIGH_WATER and exchange.to_editor.size < OVERFULL
        return self._is_reading and has_room

    def _milliseconds(self) -> float | None:
        due = min(self._exit_at, self._search.patience_ends)
        if self._daemon is None:
            due = min(due, self._search.look_at)
        return None if due == NEVER else max(0.0, due - self._clock()) * 1000 + 1

    def _read_editor(self) -> None:
        try:
            data = os.read(self._editor_in, READ_BYTES)
        except OSError:  # a terminal that is gone
            data = b""
        if not data:
            self._is_reading = False
            self._leave()
            return
        if self._from_editor is None:
            self._from_editor = framing_of(data)
            self._exchange.to_editor.by_header = isinstance(self._from_editor, Headers)
        for line in self._from_editor.receive(data):
            self._exchange.from_editor(line)

    def _write_editor(self, event: int) -> None:
        try:
            if event & GONE:
                raise BrokenPipeError
            written = os.write(self._editor_out, self._exchange.to_editor.head(PIPE_BYTES))
        except OSError:
            # Its last words, a cancel perhaps, may still stand in the other pipe.
            self._is_writing = False
            self._exchange.to_editor = Discarded()
            self._leave()
        else:
            self._exchange.to_editor.wrote(written)

    def _leave(self) -> None:
        self._exit_at = min(self._exit_at, self._clock() + EXIT_PATIENCE)

    def _serve_daemon(self, daemon: socket.socket, event: int) -> None:
        try:
            if event & (select.POLLIN | GONE):
                self._read_daemon(daemon)
        except BlockingIOError:
            pass  # it was ready a moment ago; poll says when it is again
        except OSError:
            self._lose_daemon()
        if event & select.POLLOUT and daemon is self._daemon:
            self._write_daemon(daemon)

    def _read_daemon(self, daemon: socket.socket) -> None:
        data = daemon.recv(READ_BYTES)
        self._has_heard = self._has_heard or bool(data)
        for line in self._from_daemon.receive(data):
            if isinstance(line, Refused) or not self._exchange.from_daemon(line):
                self._has_heard = False  # it will be no better at once
                self._lose_daemon()
                return
        if not data:
            self._lose_daemon()

    def _write_daemon(self, daemon: socket.socket) -> None:
        try:
            sent = daemon.send(self._exchange.to_daemon.head(READ_BYTES))
        except BlockingIOError:
            return
        except OSError:
            self._is_deaf = True  # it is gone, and its last words come first
        else:
            self._exchange.to_daemon.wrote(sent)


def run(state_dir: str) -> int:
    """Relay between this process's stdio and the daemon of `state_dir`; gives the exit code."""
    return run_with(StateDir(state_dir), IdentityFiles(state_dir))


def run_with(finder: Finder[socket.socket], identities: IdentityFiles) -> int:
    """The same, with the daemon that `finder` finds."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a traceback on stderr
    exchange = Exchange(identities, f"acp-{os.urandom(8).hex()}")
    Relay(exchange, Search(finder, time.monotonic()), 0, 1).run()
    return 0

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

from moorage_clients.bridge.exchange import Exchange
from moorage_clients.bridge.frames import Headers, Lines, Refused, framing_of
from moorage_clients.bridge.launch import PAUSE, Launch, LaunchFailed, dial
from moorage_clients.bridge.outbox import Discarded


READ_BYTES = 64 * 1024  # at once; a pipe holds no more
PIPE_BYTES = 4096  # PIPE_BUF on Linux: a pipe that polls as writable takes so much without blocking
HIGH_WATER = 2**20  # bytes on their way to one side; then the other side is not read
OVERFULL = 4 * HIGH_WATER  # bytes; an editor that reads nothing may still cancel, up to here

RETURN_GRACE = 1.0  # seconds a lost daemon has to come back by itself before one is started
LOOK_AGAIN = 0.25  # seconds between looks for a daemon that nobody waits for
HOLD_OFF = 1.0  # seconds after a failed start, or a daemon that hung up before it said anything
EXIT_PATIENCE = 1.5  # seconds for answers still due when the editor has closed its end

GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Relay:
    """One editor's stdio, and the connection to the daemon while there is one."""

    def __init__(self, state_dir: str, editor_in: int, editor_out: int) -> None:
        self._state_dir = state_dir
        self._editor_in, self._editor_out = editor_in, editor_out
        self._exchange = Exchange()
        self._from_editor: Lines | Headers | None = None  # as the first byte will decide
        self._from_daemon = Lines()
        self._daemon: socket.socket | None = None
        self._has_heard = False  # anything over the present connection
        self._launch: Launch | None = Launch(state_dir)  # the first daemon is not waited for
        self._started: list[Launch] = []  # whose daemons are our children, to be reaped
        self._look_at = 0.0  # when to look for a daemon again
        self._lost_at = -RETURN_GRACE
        self._is_reading = self._is_writing = True  # what the editor sends, what it is sent
        self._exit_at = float("inf")  # set when either end of the editor is closed

    def run(self) -> None:
        """Relay until the editor is gone."""
        try:
            while not self._is_over():
                if self._daemon is None and time.monotonic() >= self._look_at:
                    self._look_for_daemon()
                self._turn()
        finally:
            if self._launch is not None:
                self._launch.close()
            if self._daemon is not None:
                self._daemon.close()

    def _is_over(self) -> bool:
        if time.monotonic() >= self._exit_at:
            return True
        if self._is_reading:
            return False
        exchange = self._exchange
        return exchange.is_settled if self._is_writing else exchange.is_delivered

    # ---- having a daemon

    def _look_for_daemon(self) -> None:
        now = time.monotonic()
        for launch in self._started:
            launch.reap()
        if self._launch is None and self._is_time_to_start(now):
            self._launch = Launch(self._state_dir)
        if self._launch is None:
            self._look_at = now + LOOK_AGAIN
            self._connected(dial(self._state_dir))
            return
        self._look_at = now + PAUSE
        try:
            self._connected(self._launch.attempt())
        except LaunchFailed as error:
            self._launch = None
            self._look_at = now + HOLD_OFF
            self._exchange.give_up(f"No moorage daemon: {' '.join(str(error).split())}")

    def _is_time_to_start(self, now: float) -> bool:
        """One that was stopped on purpose stays stopped until the editor asks for something."""
        return self._exchange.wants_daemon and now >= self._lost_at + RETURN_GRACE

    def _connected(self, connection: socket.socket | None) -> None:
        if connection is None:
            return
        if self._launch is not None and self._launch.process is not None:
            self._started = [self._launch]
        self._daemon, self._launch = connection, None
        self._from_daemon, self._has_heard = Lines(), False
        self._exchange.opened()

    def _lose_daemon(self) -> None:
        if self._daemon is None:
            return
        self._daemon.close()
        self._daemon = None
        self._lost_at = time.monotonic()
        self._look_at = self._lost_at + (PAUSE if self._has_heard else HOLD_OFF)
        self._exchange.lost()

    # ---- one turn of the loop

    def _turn(self) -> None:
        exchange, poll = self._exchange, select.poll()
        if self._has_room_for_editor():
            poll.register(self._editor_in, select.POLLIN)
        if self._is_writing:
            poll.register(self._editor_out, select.POLLOUT if exchange.to_editor else 0)
        daemon = self._daemon
        if daemon is not None:
            reads = select.POLLIN if exchange.to_editor.size < HIGH_WATER else 0
            poll.register(daemon, reads | (select.POLLOUT if exchange.to_daemon else 0))
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
        due = self._exit_at if self._daemon else min(self._exit_at, self._look_at)
        return None if due == float("inf") else max(0.0, due - time.monotonic()) * 1000 + 1

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
        self._exit_at = min(self._exit_at, time.monotonic() + EXIT_PATIENCE)

    def _serve_daemon(self, daemon: socket.socket, event: int) -> None:
        try:
            if event & (select.POLLIN | GONE):
                self._read_daemon(daemon)
            if event & select.POLLOUT and daemon is self._daemon:
                head = self._exchange.to_daemon.head(READ_BYTES)
                self._exchange.to_daemon.wrote(daemon.send(head))
        except BlockingIOError:
            return  # it was ready a moment ago; poll says when it is again
        except OSError:
            self._lose_daemon()

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


def run(state_dir: str) -> int:
    """Relay between this process's stdio and the daemon of `state_dir`; gives the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a traceback on stderr
    Relay(state_dir, 0, 1).run()
    return 0

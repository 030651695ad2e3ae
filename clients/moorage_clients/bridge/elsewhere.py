"""Daemons that are named by their address: they are looked for, and never started from here.

A unix socket is connected to as any other. A WebSocket takes what an editor does not wait for, so
another process speaks it and passes lines on (`moorage_clients.pump`); that one ends with its
connection, and the search begins again. The token is handed over the pipe between the two: a
command line, an environment and a disk are no place for it.
"""

import os
import socket
import sys
import time
from typing import TYPE_CHECKING

from moorage_clients.bridge.launch import LaunchFailed, connect_unix


if TYPE_CHECKING:
    import subprocess


PATIENCE = 20.0  # seconds for a connection; a handshake over ssh takes one
LOOK_EVERY = 5.0  # seconds between tries that nobody waits for: each takes a process
MAX_SAID = 1000  # bytes of the reason why there is no connection


class UnixPlace:
    """A daemon's unix socket, or one that ssh leads there."""

    def __init__(self, path: str) -> None:
        self._path = path

    def dial(self) -> socket.socket | None:
        """Connect to it if it answers."""
        return connect_unix(self._path)

    def start(self) -> "UnixPlace":
        """Begin an attempt."""
        return self

    def attempt(self) -> socket.socket | None:
        """Look once; raises `LaunchFailed`."""
        connection = self.dial()
        if connection is None:
            raise LaunchFailed(f"none answers at {self._path}")
        return connection

    def close(self) -> None:
        """There is nothing to end."""

    def reap(self) -> bool:
        """Nothing was started."""
        return False


class WebsocketPlace:
    """A daemon's WebSocket, or one that ssh leads there."""

    def __init__(self, address: str, token: str) -> None:
        self._address, self._token = address, token
        self._look: Pump | None = None
        self._look_at = 0.0

    def dial(self) -> socket.socket | None:
        """Connect to it if it answers; over several calls, as it takes a moment."""
        if self._look is None:
            if time.monotonic() < self._look_at:
                return None
            self._look_at = time.monotonic() + LOOK_EVERY
            self._look = self.start()
        try:
            connection = self._look.attempt()
        except LaunchFailed:
            self._look = None
            return None
        if connection is not None:
            self._look = None
        return connection

    def start(self) -> "Pump":
        """Begin an attempt."""
        return Pump(self._address, self._token)


class Pump:
    """One attempt to connect: the process that speaks the WebSocket, until it is connected."""

    def __init__(self, address: str, token: str) -> None:
        self._address, self._token = address, token
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._news = -1  # where it says that it is connected, or why not
        self._said = b""
        self._deadline = time.monotonic() + PATIENCE

    def attempt(self) -> socket.socket | None:
        """Look once whether it is connected, starting it if need be; raises `LaunchFailed`."""
        if self._process is None:
            self._spawn()
        try:
            data = os.read(self._news, MAX_SAID)
        except BlockingIOError:
            if time.monotonic() < self._deadline:
                return None
            data = b"it does not answer\n"
        self._said += data
        if data and b"\n" not in self._said and len(self._said) < MAX_SAID:
            return None
        return self._connected()

    def _connected(self) -> socket.socket:
        """What was said decides: nothing but the end of a line means that it is connected."""
        connection, self._connection = self._connection, None
        if self._said == b"\n" and connection is not None:
            self.close()
            return connection
        if connection is not None:
            connection.close()
        if self.reap() and self._process is not None:
            self._process.kill()
        self.close()
        problem = self._said.decode(errors="replace").strip() or "its process ended"
        raise LaunchFailed(f"{self._address}: {problem}")

    def _spawn(self) -> None:
        import subprocess  # costs milliseconds that only this may take

        ours, theirs = socket.socketpair()
        self._news, says = os.pipe()
        os.set_blocking(self._news, False)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "moorage_clients.pump", self._address],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=says,
                )
            except OSError as error:
                ours.close()
                raise LaunchFailed(f"{sys.executable}: {error.strerror}") from error
            finally:
                os.close(says)
        ours.sendall(self._token.encode() + b"\n")  # a new pair takes so much at once
        ours.setblocking(False)
        self._connection = ours

    def close(self) -> None:
        """End the attempt; what is connected stays so."""
        if self._news != -1:
            os.close(self._news)
            self._news = -1
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def reap(self) -> bool:
        """Take note of the end of the process; whether it still runs."""
        return self._process is not None and self._process.poll() is None

"""What a client that sends as fast as it can costs another one."""

import socket
import threading  # noqa: TID251 - it floods while another client is served; this is no trio program
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark.daemon import Daemon
from scripts.benchmark.figures import spread, timed
from scripts.benchmark.wire import Json


NOISE = b'{"jsonrpc":"2.0","method":"session/cancel","params":{"sessionId":"nobody\'s"}}\n' * 500
WARM_UP = 2.5  # seconds; the burst that every client may send is over by then


@dataclass
class Flood:
    """Notifications from one connection; `sent` are the bytes that the daemon has taken."""

    sock: socket.socket
    sent: int = 0

    def run(self) -> None:
        """Send until the socket is shut."""
        with suppress(OSError):
            while True:
                self.sent += self.sock.send(NOISE)


def flood_figures(daemon: Daemon, work: Path, rounds: int) -> Json:
    """A turn of one client, alone and while another one floods."""
    agent, _ = daemon.connect_unix()
    session = agent.new_session(work)

    def turns() -> list[float]:
        return [timed(lambda: agent.prompt(session, "hi")) for _ in range(rounds)]

    alone = turns()
    with flooding(daemon) as flood:
        time.sleep(WARM_UP)  # noqa: TID251 - no event loop runs here
        sent, start = flood.sent, time.perf_counter()
        beside = turns()
        rate = (flood.sent - sent) / (time.perf_counter() - start) / (len(NOISE) / 500)
    return {
        "alone": spread(alone),
        "beside_a_flood": spread(beside),
        "frames_per_second": round(rate),
    }


@contextmanager
def flooding(daemon: Daemon) -> Generator[Flood]:
    """A client that floods meanwhile."""
    _, sock = daemon.connect_unix()
    flood = Flood(sock)
    thread = threading.Thread(target=flood.run, daemon=True)
    thread.start()
    try:
        yield flood
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        sock.close()

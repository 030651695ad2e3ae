"""Runs all measurements and prints one JSON document."""

import argparse
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading  # noqa: TID251 - ten clients read at once; this is no trio program
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from scripts.benchmark.daemon import Daemon, memory_of, running_daemon, user_environment
from scripts.benchmark.figures import beside, say, spread, timed
from scripts.benchmark.flood import flood_figures
from scripts.benchmark.grants import grant_figures
from scripts.benchmark.provider import provider_figures
from scripts.benchmark.store import store_figures
from scripts.benchmark.wire import Agent, Json, process_stream


CHUNKS = 2000
MANY = 500  # sessions, and clients: what the first dozens share would count too much among fewer
EPILOG = """\
examples:
  scripts/bench                    all of it, some six minutes
  scripts/bench --quick            a tenth of the rounds, to see that it works
  scripts/bench --only provider    turns over a model, beside agents that are had on demand
  scripts/bench > now.json         figures to a file, progress to the terminal

Times are milliseconds unless a name says otherwise. `peer` is an echo agent on the protocol's own
Python library over stdio: it stores nothing, so it is what the wire costs. `vs_peer` is ours
divided by the peer's in this very run. The section `provider` installs codex and fast-agent, by
name and version, into the user's cache; where one cannot be had it says so and goes on.
"""

SECTIONS = ("daemon", "memory", "grants", "store", "provider")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure the daemon beside a peer.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", choices=SECTIONS, help="one section")
    arguments = parser.parse_args()
    sections = [arguments.only] if arguments.only else SECTIONS
    print(json.dumps(measure(sections, 0.1 if arguments.quick else 1.0), indent=2))


def measure(sections: Sequence[str], rounds: float) -> Json:
    """The figures of those sections."""
    figures: Json = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="moorage-bench-work-") as name:
        work = Path(name)
        if "daemon" in sections:
            figures |= daemon_figures(work, rounds)
        if "memory" in sections:
            say("memory")
            with running_daemon() as daemon:
                figures["memory_kib_each"] = memory_figures(daemon, work, MANY)
        if "grants" in sections:
            say("grants")
            figures["grants"] = grant_figures(_some(100, rounds, 20))
        if "store" in sections:
            figures["store"] = store_figures(work, rounds)
        if "provider" in sections:
            say("provider")
            turns, long_turns = _some(200, rounds, 20), _some(30, rounds, 5)
            figures["provider"] = provider_figures(work, turns, long_turns)
    return figures


def _some(count: int, rounds: float, least: int) -> int:
    return max(least, int(count * rounds))


def daemon_figures(work: Path, rounds: float) -> Json:
    """The daemon with the scripted agent."""
    turns, sessions = _some(200, rounds, 20), _some(100, rounds, 10)
    figures: Json = {"rounds": {"turns": turns, "sessions": sessions}}
    say("start")
    figures["start_to_ready"] = start_to_ready(_some(10, rounds, 3))
    with running_daemon() as daemon, echo_agent() as peer:
        figures["memory_at_start_mib"] = round(daemon.resident_kib() / 1024, 1)
        say("turns")
        figures["turn"] = turn_figures(daemon, peer, work, turns)
        say("new sessions")
        figures["session_new"] = new_figures(daemon, peer, work, sessions)
        say("streams")
        figures["stream_2000"] = stream_figures(daemon, peer, work)
        say("cancels")
        figures["cancel"] = cancel_figures(daemon, peer, work, _some(50, rounds, 10))
        say("the bridge")
        figures["bridge_first_answer"] = bridge_first_answer(daemon, _some(10, rounds, 3))
        say("a busy daemon")
        figures["turn_while_100_sessions_stream"] = busy_figures(daemon, work, turns)
        say("a flood")
        figures["turn_beside_a_flood"] = flood_figures(daemon, work, turns)
    return figures


def machine() -> Json:
    """What it was measured on."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count() or 0,
        "load": round(os.getloadavg()[0], 2),
    }


@contextmanager
def echo_agent() -> Generator[tuple[Agent, subprocess.Popen[bytes]]]:
    """The peer."""
    command = [sys.executable, "-m", "scripts.benchmark.echo_agent"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Agent(process_stream(process)), process
    finally:
        process.kill()
        process.wait()


def start_to_ready(rounds: int) -> Json:
    """From starting the process to its ready line."""
    seconds: list[float] = []
    for _ in range(rounds + 1):
        with running_daemon() as daemon:
            seconds.append(daemon.ready_seconds)
    return spread(seconds[1:])  # the first one warms up


Peer = tuple[Agent, subprocess.Popen[bytes]]


def turn_figures(daemon: Daemon, peer: Peer, work: Path, rounds: int) -> Json:
    """Prompt to answer, one chunk; ours is durable, the peer's is not."""
    clients = {
        "unix": daemon.connect_unix()[0],
        "websocket": daemon.connect_websocket()[0],
        "peer": peer[0],
    }
    return interleaved(clients, work, rounds, lambda agent, session: agent.prompt(session, "hi"))


def new_figures(daemon: Daemon, peer: Peer, work: Path, rounds: int) -> Json:
    """A new session."""
    clients = {
        "unix": daemon.connect_unix()[0],
        "websocket": daemon.connect_websocket()[0],
        "peer": peer[0],
    }
    return interleaved(clients, work, rounds, lambda agent, _: agent.new_session(work))


def interleaved(
    clients: dict[str, Agent], work: Path, rounds: int, act: Callable[[Agent, str], object]
) -> Json:
    """The same act by each client in turn, so that noise hits all alike."""
    sessions = {name: agent.new_session(work) for name, agent in clients.items()}
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    for number in range(rounds + 5):
        for name, agent in clients.items():
            took = timed(partial(act, agent, sessions[name]))
            if number >= 5:  # the first ones warm up
                seconds[name].append(took)
    figures = {name: spread(found) for name, found in seconds.items()}
    return {n: f if n == "peer" else beside(f, figures["peer"]) for n, f in figures.items()}


# ---- streams


def stream_figures(daemon: Daemon, peer: Peer, work: Path) -> Json:
    """2,000 chunks to one client and to ten; what arrived is compared with the log."""
    figures: Json = {}
    session = peer[0].new_session(work)
    figures["peer"] = spread([timed(lambda: peer[0].prompt(session, f"/stream {CHUNKS}"))])
    for name, connect in (("unix", daemon.connect_unix), ("websocket", daemon.connect_websocket)):
        for clients in (1, 10):
            took = min(stream_once(connect, work, clients) for _ in range(3))
            figures[f"{name}_{clients}"] = beside(spread([took]), figures["peer"])
    return figures


Connect = Callable[[], tuple[Agent, socket.socket]]


def stream_once(connect: Connect, work: Path, clients: int) -> float:
    """Seconds until the last of the clients has all of it."""
    agents = [connect()[0] for _ in range(clients)]
    session = agents[0].new_session(work)
    for agent in agents[1:]:
        params: Json = {"sessionId": session, "cwd": str(work), "mcpServers": []}
        agent.call("session/resume", params)
    texts = [Transcript() for _ in agents]
    watchers = [
        threading.Thread(target=texts[i].read_to_end, args=(agents[i],), daemon=True)
        for i in range(1, clients)
    ]
    for watcher in watchers:
        watcher.start()
    before = time.perf_counter()
    agents[0].prompt(session, f"/stream {CHUNKS}", texts[0].add)
    for watcher in watchers:
        watcher.join(30)
    took = time.perf_counter() - before
    expected = "".join(f"chunk {number + 1}\n" for number in range(CHUNKS))
    if any(transcript.text != expected for transcript in texts):
        raise RuntimeError("a client did not get what the log holds")
    return took


class Transcript:
    """The agent's text as one client saw it."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)

    def add(self, raw: bytes) -> None:
        """Take one message."""
        if b'"agent_message_chunk"' in raw:
            text: str = json.loads(raw)["params"]["update"]["content"]["text"]
            self._parts.append(text)
            self._size += len(text)

    def read_to_end(self, agent: Agent) -> None:
        """Read until all chunks are there."""
        total = sum(len(f"chunk {number + 1}\n") for number in range(CHUNKS))
        while self._size < total:
            self.add(agent.stream.receive())


# ---- cancels


def cancel_figures(daemon: Daemon, peer: Peer, work: Path, rounds: int) -> Json:
    """From a cancel to the prompt's answer, also while somebody does not read."""
    figures: Json = {"peer": cancels(peer[0], work, rounds)}
    for name, connect in (("unix", daemon.connect_unix), ("websocket", daemon.connect_websocket)):
        figures[name] = beside(cancels(connect()[0], work, rounds), figures["peer"])
        with stalled_client(connect, work):
            figures[f"{name}_other_client_stalled"] = cancels(connect()[0], work, rounds)
        figures[f"{name}_same_client_stalled"] = spread(
            [cancel_while_stalled(daemon, connect, work) for _ in range(max(3, rounds // 10))]
        )
    return figures


def cancels(agent: Agent, work: Path, rounds: int) -> Json:
    """Cancels of a sleeping turn by the one who prompted."""
    session = agent.new_session(work)
    return spread([cancel_once(agent, session) for _ in range(rounds)])


def cancel_once(agent: Agent, session: str) -> float:
    """Seconds from a cancel to the answer."""
    request = agent.start_prompt(session, "/sleep 60")
    time.sleep(0.01)  # noqa: TID251 - the turn is to be at work; this is no trio program
    before = time.perf_counter()
    agent.notify("session/cancel", {"sessionId": session})
    if agent.finish(request)["stopReason"] != "cancelled":
        raise RuntimeError("the turn was not cancelled")
    return time.perf_counter() - before


@contextmanager
def stalled_client(connect: Connect, work: Path) -> Generator[None]:
    """A client that streams without end and reads nothing of it."""
    agent, sock = connect()
    agent.start_prompt(agent.new_session(work), "/stream 10000000")
    time.sleep(0.5)  # noqa: TID251 - until its buffers are full; this is no trio program
    try:
        yield
    finally:
        sock.close()
        stopper = connect()[0]
        for row in stopper.call("session/list", {})["sessions"]:
            stopper.notify("session/cancel", {"sessionId": row["sessionId"]})


def cancel_while_stalled(daemon: Daemon, connect: Connect, work: Path) -> float:
    """Seconds until a turn ends that was cancelled by a client that reads nothing."""
    watcher, _ = daemon.connect_unix(moorage=True)
    agent, sock = connect()
    session = agent.new_session(work)
    watcher.call("_moorage/session/attach", {"sessionId": session})
    drain = Verdicts(watcher)
    thread = threading.Thread(target=drain.read, daemon=True)
    thread.start()
    agent.start_prompt(session, "/stream 10000000")
    time.sleep(0.5)  # noqa: TID251 - until its buffers are full; this is no trio program
    before = time.perf_counter()
    agent.notify("session/cancel", {"sessionId": session})
    thread.join(30)
    sock.close()
    return drain.seen - before


class Verdicts:
    """Reads a session until its turn has ended, and notes when that was."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.seen = float("inf")

    def read(self) -> None:
        """Read to the verdict."""
        while b'"kind":"verdict"' not in self._agent.stream.receive():
            pass
        self.seen = time.perf_counter()


# ---- the rest


def bridge_first_answer(daemon: Daemon, rounds: int) -> Json:
    """From starting `moorage acp` to its answer to `initialize`."""
    command = [str(Path(sys.executable).with_name("moorage")), "acp"]
    environment = {**user_environment(), "MOORAGE_STATE_DIR": str(daemon.state)}
    bare_command = [sys.executable, "-c", ""]
    seconds: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        bare.append(timed(lambda: subprocess.run(bare_command, check=True, env=environment)))
        before = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        Agent(process_stream(process))
        seconds.append(time.perf_counter() - before)
        process.kill()
        process.wait()
    return {**spread(seconds), "bare_interpreter_p50": spread(bare)["p50"]}


def busy_figures(daemon: Daemon, work: Path, rounds: int) -> Json:
    """A turn while 100 sessions stream as fast as the daemon can."""
    streaming = [daemon.connect_unix() for _ in range(100)]
    for agent, _ in streaming:
        agent.start_prompt(agent.new_session(work), "/stream 10000000")
    threads = [threading.Thread(target=swallow, args=(s,), daemon=True) for _, s in streaming]
    for thread in threads:
        thread.start()
    agent, _ = daemon.connect_unix()
    session = agent.new_session(work)
    seconds = [timed(lambda: agent.prompt(session, "hi")) for _ in range(max(10, rounds // 4))]
    for _, sock in streaming:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    return spread(seconds)


def swallow(sock: socket.socket) -> None:
    """Read and forget."""
    with suppress(OSError):
        while sock.recv(2**20):
            pass


def memory_figures(daemon: Daemon, work: Path, many: int) -> Json:
    """What an idle session and an idle client cost, in KiB."""
    agent, _ = daemon.connect_unix()
    agent.prompt(agent.new_session(work), "hi")
    before = memory_of(daemon.pid)
    for _ in range(many):
        agent.prompt(agent.new_session(work), "hi")
    with_sessions = memory_of(daemon.pid)
    clients = [daemon.connect_websocket() for _ in range(many)]
    with_clients = memory_of(daemon.pid)
    figures = {
        "count": many,
        "idle_session": round((with_sessions - before) / many, 1),
        "idle_websocket_client": round((with_clients - with_sessions) / many, 1),
    }
    for _, sock in clients:
        sock.close()
    return figures


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()

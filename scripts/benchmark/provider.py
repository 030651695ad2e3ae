"""What a turn of the native agent takes beside the model's own time, in one run with the peers.

All of them ask the same model, one after the other in each round, so that noise hits all alike;
every answer is compared with what the model said. Ours is durable before it is told.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmark.daemon import Daemon, running_daemon
from scripts.benchmark.figures import say, spread
from scripts.benchmark.model import said, wish
from scripts.benchmark.peers import PEERS, AcpTalker, Missing, Peer, Talker
from scripts.benchmark.wire import Agent, Json, process_stream


PIECES = 2000
WARM_UP = 3  # rounds that are not counted
MAX_TURNS = 25  # of one session: what was said before is sent again with every turn
CONFIG = """\
default_agent = "native"
[providers.fake]
kind = "openai"
base_url = "{base_url}"
model = "fake"
"""


@dataclass
class Model:
    """The model, in a process of its own."""

    base_url: str

    def own_seconds(self) -> float:
        """What it took itself since it was last asked this."""
        with urllib.request.urlopen(f"{self.base_url.removesuffix('/v1')}/spans") as answer:
            spans: list[float] = json.load(answer)
        return sum(spans)


@contextmanager
def running_model() -> Generator[Model]:
    """Start the model; it is stopped at the end."""
    command = [sys.executable, "-m", "scripts.benchmark.model"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Model(f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
    finally:
        process.kill()
        process.wait()


@dataclass
class Runner:
    """One of those compared, and what its turns took beyond the model's own time."""

    name: str
    talker: Talker
    is_ours: bool = False
    beyond: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    whole: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    _session: str = ""

    def turn(self, model: Model, work: Path, number: int, pieces: int) -> None:
        """One turn, counted unless it warms up."""
        if number % MAX_TURNS == 0:
            self._session = self.talker.begin(work)
        model.own_seconds()
        before = time.perf_counter()
        heard = self.talker.ask(self._session, wish(pieces))
        took = time.perf_counter() - before
        if self.talker.said(heard) != said(pieces):
            raise RuntimeError(f"{self.name} did not tell what the model said")
        if number >= WARM_UP:
            self.whole.setdefault(pieces, []).append(took)
            self.beyond.setdefault(pieces, []).append(took - model.own_seconds())


def provider_figures(work: Path, rounds: int, long_rounds: int) -> Json:
    """The whole section."""
    programs, found = _programs()
    figures: Json = {"peers": found}
    with ExitStack() as stack:
        model = stack.enter_context(running_model())
        runners = [
            Runner(peer.name, stack.enter_context(peer.running(program, work, model.base_url)))
            for peer, program in programs
        ]
        runners = [*_ours(stack, work, model), *runners]
        for pieces, count in ((1, rounds), (PIECES, long_rounds)):
            say(f"turns of {pieces} pieces")
            for number in range(count + WARM_UP):
                for runner in runners:
                    runner.turn(model, work, number, pieces)
    figures["turn_1_piece"] = _beside_best(runners, 1)
    figures[f"turn_{PIECES}_pieces"] = _beside_best(runners, PIECES)
    return figures


def _programs() -> tuple[list[tuple[Peer, Path]], Json]:
    """The peers that can be had, and what is told of all."""
    programs: list[tuple[Peer, Path]] = []
    told: Json = {}
    for peer in PEERS:
        say(f"{peer.name} {peer.version}: installing it where it is not yet")
        try:
            programs.append((peer, peer.install()))
            told[peer.name] = {"version": peer.version}
        except Missing as problem:
            say(f"!!! {peer.name} IS MISSING, nothing is compared with it: {problem}")
            told[peer.name] = {"missing": str(problem)}
    return programs, told


def _ours(stack: ExitStack, work: Path, model: Model) -> list[Runner]:
    config = work / "native.toml"
    config.write_text(CONFIG.format(base_url=model.base_url))
    daemon = stack.enter_context(running_daemon("--config", str(config)))
    return [
        Runner("unix", AcpTalker(daemon.connect_unix()[0]), is_ours=True),
        Runner("websocket", AcpTalker(daemon.connect_websocket()[0]), is_ours=True),
        Runner("bridge", AcpTalker(stack.enter_context(_bridge(daemon))), is_ours=True),
    ]


@contextmanager
def _bridge(daemon: Daemon) -> Generator[Agent]:
    """An editor's way to the daemon: as the peers, a process on pipes."""
    command = [str(Path(sys.executable).with_name("moorage")), "acp"]
    environment = {**os.environ, "MOORAGE_STATE_DIR": str(daemon.state)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    try:
        yield Agent(process_stream(process))
    finally:
        process.kill()
        process.wait()


def _beside_best(runners: list[Runner], pieces: int) -> Json:
    """Everybody's figures, and ours as a share of the best peer's."""
    figures: Json = {}
    for runner in runners:
        figures[runner.name] = {
            "beyond_the_model": spread(runner.beyond[pieces]),
            "pieces_per_second": round(pieces / statistics.median(runner.whole[pieces])),
        }
    peers = [figures[runner.name] for runner in runners if not runner.is_ours]
    for runner in runners:
        if runner.is_ours and peers:
            own, least = figures[runner.name], min(p["beyond_the_model"]["p50"] for p in peers)
            most = max(p["pieces_per_second"] for p in peers)
            own["beyond_the_model_vs_best_peer"] = round(own["beyond_the_model"]["p50"] / least, 3)
            own["pieces_per_second_vs_best_peer"] = round(own["pieces_per_second"] / most, 2)
    return figures

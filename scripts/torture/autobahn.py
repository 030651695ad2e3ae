"""Has Autobahn's fuzzing client try the WebSocket: the library as the daemon sets it up.

The listener, its channel and its one writer are the daemon's own; only the gate is open and what a
client says is sent back. Left out is what the daemon does not offer: binary messages, which it
ignores, compression, and messages above its limits. The client needs Python 2.7: it is installed
into the user's cache, and where there is no such Python this cannot be tried.
"""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio
from platformdirs import user_cache_path
from websockets.datastructures import Headers

from moorage_daemon.connection.outbox import Outbox
from moorage_daemon.connection.transport import TransportClosed
from moorage_daemon.identity import Principal
from moorage_daemon.settings import WebsocketAddress
from moorage_daemon.transports.gate import PATH, Gate
from moorage_daemon.transports.room import open_room
from moorage_daemon.transports.websocket import WebSocketTransport, open_websocket
from moorage_protocol.moorage import Role
from scripts.torture.report import CannotRun, Program, Report, run


PROGRAM = Program("autobahn", __doc__, rounds=1, quick_rounds=1)

SUITE = "autobahntestsuite==25.10.1"
PYTHON = "MOORAGE_PYTHON2"  # names a Python 2.7 that is not found by itself
PATIENCE = 900.0  # seconds for all cases; an idle machine takes some 30

BINARY = ["1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*"]
COMPRESSED = ["12.*", "13.*"]
TOO_LARGE = ["9.1.6"]  # 16 MiB in one message
TOO_MANY_PIECES = ["9.3.1", "9.3.2", "9.3.3"]  # the library takes 4,096 a message
# A close between the pieces of a message is answered with 1002 by the library, where the suite
# wants the client's code back. RFC 6455, section 5.5.1 has that typical, not required.
OTHER_CODE = ["7.1.5"]

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
RUN = """\
import site, sys
site.addsitedir(sys.argv.pop(1))
from autobahntestsuite import wstest
wstest.run()
"""


@dataclass(frozen=True)
class OpenGate(Gate):
    """Lets everybody in: the suite has no credential, and its page no origin."""

    def check(self, path: str, headers: Headers) -> Principal:
        """Whoever it is."""
        return Principal("autobahn", Role.OBSERVER)


async def echo(transport: WebSocketTransport, _who: Principal, *, twice: bool = False) -> None:
    """Send back what comes in, through one writer as a connection has it."""
    async with trio.open_nursery() as nursery:
        outbox = Outbox(nursery.cancel_scope.cancel)
        transport.on_due(outbox.wake_transport)
        nursery.start_soon(_write, transport, outbox, nursery.cancel_scope)
        try:
            while True:
                for frame in await transport.receive():
                    assert isinstance(frame, bytes)
                    outbox.put([frame, frame] if twice else [frame])
        except TransportClosed:
            with trio.move_on_after(1):
                await outbox.drained()
        nursery.cancel_scope.cancel()


async def _write(transport: WebSocketTransport, outbox: Outbox, scope: trio.CancelScope) -> None:
    try:
        while True:
            await transport.send(await outbox.next())
    except TransportClosed:
        scope.cancel()


# ---- the suite


def find_python() -> str:
    """A Python 2.7; raises `CannotRun`."""
    for candidate in _candidates():
        try:
            done = subprocess.run([candidate, "-m", "pip", "--version"], capture_output=True)
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    raise CannotRun(f"the suite needs a Python 2.7 with pip; {PYTHON} may name one")


def _candidates() -> Iterator[str]:
    if PYTHON in os.environ:
        yield os.environ[PYTHON]
    yield "python2.7"
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(root.glob("versions/2.7*/bin/python2.7")))


def installed(python: str) -> Path:
    """Where the suite is, installed if it is not; raises `CannotRun`."""
    place = user_cache_path("moorage") / "autobahn" / SUITE.replace("==", "-")
    if (place / "complete").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "pip", "install", "--quiet", "--target", str(place), SUITE]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise CannotRun(f"the suite cannot be installed: {last}")
    (place / "complete").touch()
    return place


async def try_all(report: Report, name: str, port: int, cases: list[str]) -> dict[str, Any]:
    """Run cases against the listener; gives the suite's own verdicts, case by case."""
    python = await trio.to_thread.run_sync(find_python)
    place = await trio.to_thread.run_sync(installed, python)
    out = report.work / name
    spec: dict[str, Any] = {
        "outdir": str(out),
        "servers": [{"agent": name, "url": f"ws://127.0.0.1:{port}{PATH}"}],
        "cases": cases,
        "exclude-cases": BINARY + COMPRESSED + TOO_LARGE + TOO_MANY_PIECES + OTHER_CODE,
        "exclude-agent-cases": {},
    }
    settings = report.work / f"{name}.json"
    settings.write_text(json.dumps(spec))
    command = [python, "-c", RUN, str(place), "-m", "fuzzingclient", "-s", str(settings)]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, cwd=report.work
        )
    index = out / "index.json"
    if not index.exists():
        raise CannotRun(f"the suite broke: {done.stderr.decode(errors='replace')[-500:]}")
    verdicts: dict[str, Any] = json.loads(index.read_text())[name]
    return verdicts


def objections(verdicts: dict[str, Any]) -> list[str]:
    """The cases that failed, in what was said or in how it was closed."""
    return [
        f"case {case}: {verdict['behavior']}, close {verdict['behaviorClose']}"
        for case, verdict in sorted(verdicts.items())
        if not {verdict["behavior"], verdict["behaviorClose"]} <= GOOD
    ]


async def torture(report: Report) -> None:
    """All cases, and some again on a listener that says everything twice."""
    address, room = WebsocketAddress("127.0.0.1", 0), open_room()
    gate = partial(OpenGate, authenticate=lambda _: None)
    async with open_websocket(address, gate, echo, room) as port:
        verdicts = await try_all(report, "moorage", port, ["*"])
    async with open_websocket(address, gate, partial(echo, twice=True), room) as port:
        wrong = await try_all(report, "control", port, ["1.1.*", "5.*"])
    for problem in objections(verdicts):
        report.violation(problem)
    report.check(len(verdicts) > 100, f"only {len(verdicts)} cases were tried")
    report.control("a server that says everything twice", objections(wrong))
    report.figures["cases"] = len(verdicts)
    report.figures["verdicts"] = dict(Counter(each["behavior"] for each in verdicts.values()))
    report.figures["closes"] = dict(Counter(each["behaviorClose"] for each in verdicts.values()))


if __name__ == "__main__":
    run(PROGRAM, torture)

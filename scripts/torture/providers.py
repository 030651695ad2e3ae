"""Turns over model providers with every fault there is, and a look for the key afterwards.

A round is one turn over each kind of fault, in a session of its own. Every turn has to end in its
verdict, with what was said before the fault and no more, within its deadline; no provider is left
with an answer that nobody reads. The key that all of them are sent is then searched for in all
that the daemon has written, said and started.
"""

import base64
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import trio

from scripts.torture.client import Client, Refused, talking
from scripts.torture.daemon import Daemon, complaints, running_daemon
from scripts.torture.ledger import Json
from scripts.torture.report import Program, Report, run, spread
from scripts.torture.wire import Carrier, Link, open_link
from tests.daemon.providers.fake import FakeProvider, open_fake
from tests.daemon.providers.faults import FAULTS, SLOW_TO_SHOW, TRIED_AGAIN, Fault


PROGRAM = Program("providers", __doc__, rounds=20, quick_rounds=2)

AT_ONCE = 4  # faults under way together
SLACK = 2.0  # seconds beyond a fault's own deadline: two cores, and all of it runs on them
LINGER = 2.0  # seconds that a provider gets to end what it began to say
CANARY = "sk-canary+0123456789/ABCDEF=="  # other bytes in base64 and in a URL
VARIABLE = "MOORAGE_TORTURE_KEY"
MODEL = 'kind = "openai"\nmodel = "small"'
CHUNK = 2**20  # bytes of a file that are searched at once


@dataclass(eq=False)
class Recorded(Link):
    """A link that keeps all it was sent."""

    heard: list[bytes] = field(default_factory=list[bytes])

    async def receive(self) -> list[bytes]:
        """Read once, and keep it."""
        messages = await super().receive()
        self.heard += messages
        return messages


@dataclass(eq=False)
class Stand:
    """One fault and the provider that has it."""

    fault: Fault
    fake: FakeProvider
    name: str
    took: list[float] = field(default_factory=list[float])

    def is_quiet(self) -> bool:
        """Whether no answer is under way."""
        return not self.fake.playing

    @property
    def deadline(self) -> float:
        """Seconds that its turn may take."""
        own = sum(self.fault.settings.values()) if self.fault.settings else 0.0
        return own + SLACK + (LINGER if self.fault in SLOW_TO_SHOW else 0.0)

    def table(self, base_url: str) -> str:
        """Its part of the settings."""
        keys = {"retry_seconds": 0.0, **self.fault.settings}
        lines = [f"{key} = {value}" for key, value in keys.items()]
        head = [f"[providers.{self.name}]", MODEL, f'base_url = "{base_url}"']
        return "\n".join([*head, f'api_key_env = "{VARIABLE}"', *lines, ""])


# ---- turns


async def turn(client: Client, stand: Stand, cwd: str) -> list[str]:
    """One turn over a fault; gives what is wrong with it."""
    fault = stand.fault
    meta: Json = {"moorage": {"keepSiblings": True, "overrides": {"model_provider": stand.name}}}
    params: Json = {"cwd": cwd, "mcpServers": [], "_meta": meta}
    session = str((await client.call("session/new", params))["sessionId"])
    client.ledger(session).last = 1
    began = time.monotonic()
    with suppress(Refused), trio.move_on_after(stand.deadline * 2):
        await (await client.prompt(session, "hello")).result()
    took = time.monotonic() - began
    stand.took.append(took)
    ledger = client.ledger(session)
    found = ledger.verdicts.get(1, {})
    wrong = list(ledger.problems)
    if found.get("code") != fault.code or not found:
        wrong.append(f"{fault.name}: the verdict says {found.get('code')}, and not {fault.code}")
    if ledger.text(1) != fault.said:
        wrong.append(f"{fault.name}: {ledger.text(1)!r} was said, and not {fault.said!r}")
    if took > stand.deadline:
        wrong.append(f"{fault.name}: took {took:.2f} s of {stand.deadline:.2f} s")
    return wrong


async def all_turns(report: Report, client: Client, stands: Iterable[Stand]) -> None:
    """So many turns over each fault: those of one fault one after the other."""
    limit = trio.Semaphore(AT_ONCE)

    async def over(stand: Stand) -> None:
        async with limit:
            for _ in range(report.rounds):
                for wrong in await turn(client, stand, str(report.work)):
                    report.violation(wrong)
            report.say(f"{stand.fault.name}: {spread(stand.took)}")

    async with trio.open_nursery() as nursery:
        for stand in stands:
            nursery.start_soon(over, stand)


# ---- the key


def disguises() -> list[bytes]:
    """The key as it is, and as it would look in a header, a dump, a URL."""
    raw = CANARY.encode()
    return [raw, base64.b64encode(raw), raw.hex().encode(), quote(CANARY, safe="").encode()]


def holds_it(path: Path) -> bool:
    """Whether the key is in a file; one that has gone holds nothing."""
    longest = max(map(len, disguises()))
    before = b""
    with suppress(FileNotFoundError, ProcessLookupError), path.open("rb") as file:
        while data := file.read(CHUNK):
            if any(form in before + data for form in disguises()):
                return True
            before = data[-longest:]
    return False


def places(report: Report, daemon: Daemon) -> list[Path]:
    """All files of the daemon, its log beside them, and every command line there is."""
    files = [path for path in report.work.rglob("*") if path.is_file()]
    files += [path for path in daemon.state.parent.glob(f"{daemon.state.name}.*") if path.is_file()]
    return files + list(Path("/proc").glob("[0-9]*/cmdline"))


async def environment_of_a_tool(client: Client, cwd: str) -> str:
    """What a command sees of the environment, its own and that of its parent."""
    meta: Json = {"moorage": {"keepSiblings": True, "agent": "scripted"}}
    params: Json = {"cwd": cwd, "mcpServers": [], "_meta": meta}
    session = str((await client.call("session/new", params))["sessionId"])
    client.ledger(session).last = 1
    command = "/run cat /proc/self/environ /proc/$PPID/environ | tr '\\0' ' '"
    await (await client.prompt(session, command)).result()
    return client.ledger(session).text(1)


async def search(report: Report, daemon: Daemon, link: Recorded, client: Client) -> None:
    """Look for the key everywhere."""
    shown = await environment_of_a_tool(client, str(report.work))
    report.check("PATH=" in shown, "the tool did not show its environment")
    looked = places(report, daemon)
    for path in looked:
        report.check(not holds_it(path), f"the key is in {path}")
    for form in disguises():
        report.check(form not in b"".join(link.heard), "the key was told to a client")
        report.check(form.decode() not in shown, "the key is in a tool's environment")
    report.figures["searched"] = {"files": len(looked), "messages": len(link.heard)}


# ---- all of it


@asynccontextmanager
async def open_stands(faults: Iterable[Fault]) -> AsyncGenerator[list[Stand]]:
    """A provider for each fault."""
    async with AsyncExitStack() as stack:
        stands: list[Stand] = []
        for number, fault in enumerate(faults):
            plays = [fault.play] if fault.play else []
            fake = await stack.enter_async_context(open_fake(*plays))
            stands.append(Stand(fault, fake, f"fault{number}"))
        yield stands


def settings_of(stands: list[Stand]) -> str:
    """The settings file; where nobody is to listen, port 1 is."""
    head = f'default_agent = "native"\ndefault_provider = "{stands[0].name}"\n'
    tables = (s.table(s.fake.base_url if s.fault.play else "http://127.0.0.1:1") for s in stands)
    return head + "".join(tables)


async def torture(report: Report) -> None:
    """All rounds, the search, and the arms in which something is wrong on purpose."""
    os.environ[VARIABLE] = CANARY
    faults = [*FAULTS, *TRIED_AGAIN, *SLOW_TO_SHOW]
    async with open_stands(faults) as stands:
        state = report.work / "state"
        async with running_daemon(state, settings_of(stands)) as daemon:
            link = await open_link(daemon.address, Carrier.UNIX)
            link = Recorded(link.socket, link.framing)
            async with talking(link) as client:
                await all_turns(report, client, stands)
                await nothing_is_left(report, stands)
                await search(report, daemon, link, client)
                await controls(report, client, stands)
            for line in complaints(state):
                report.violation(line)
    report.figures["kinds"] = len(faults)
    report.figures["turns"] = sum(len(stand.took) for stand in stands)
    report.figures["turn"] = spread([took for stand in stands for took in stand.took])
    over = [max(stand.took) - stand.deadline + SLACK for stand in stands]
    report.figures["worst_beyond_deadline_s"] = round(max(over), 2)


async def nothing_is_left(report: Report, stands: Iterable[Stand]) -> None:
    """No provider goes on answering; the key came to all that were asked."""
    for stand in stands:
        with suppress(trio.TooSlowError):
            await stand.fake.until(stand.is_quiet)
        report.check(not stand.fake.playing, f"{stand.fault.name}: an answer goes on unheard")
        sent = {visit.headers.get("authorization") for visit in stand.fake.visits}
        report.check(sent <= {f"Bearer {CANARY}"}, f"{stand.fault.name}: was sent {sent}")


async def controls(report: Report, client: Client, stands: list[Stand]) -> None:
    """What these checks say when something is wrong."""
    hangs = next(stand for stand in stands if stand.fault.code == "provider_timeout")
    mistaken = Fault("mistaken", "provider_auth", hangs.fault.play, "more", hangs.fault.settings)
    wrong = await turn(client, Stand(mistaken, hangs.fake, hangs.name), str(report.work))
    report.control("wrong verdict", [line for line in wrong if "the verdict says" in line])
    report.control("wrong words", [line for line in wrong if "was said" in line])
    with tempfile.NamedTemporaryFile(dir=report.work) as planted:
        planted.write(b"." * (CHUNK - 3) + disguises()[1])
        planted.flush()
        report.control("key in a file", holds_it(Path(planted.name)))


if __name__ == "__main__":
    run(PROGRAM, torture)

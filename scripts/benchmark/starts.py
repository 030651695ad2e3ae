"""What a start costs with thousands of stored sessions: the daemon as a program, to its ready
line, beside the same with nothing stored, and beside a program that reads as much out of one JSON
file for each session.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import msgspec
import trio

from moorage_daemon.store.disk import made
from moorage_daemon.store.files.store import open_files
from moorage_daemon.store.model import (
    BeginBody,
    CostBody,
    Entry,
    Head,
    Kind,
    Life,
    PromptBody,
    PromptRef,
    StateBody,
    Totals,
    VerdictBody,
    encode_body,
)
from moorage_daemon.store.port import Change, Store
from moorage_daemon.store.sqlite import open_sqlite
from moorage_protocol.acp import StopReason
from moorage_protocol.moorage import Mode, Outcome, TokenUsage
from scripts.benchmark.daemon import running_daemon, user_environment
from scripts.benchmark.figures import spread, timed
from scripts.benchmark.wire import Json


AT_ONCE = 500  # sessions in one commit
SAID = b'{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"%b"}}' % (
    b"x" * 500
)
READER = """\
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("*.json"):
    json.loads(path.read_text())
print("ready", flush=True)
"""

Opening = Callable[[Path], AbstractAsyncContextManager[Store]]

STORES: dict[str, Opening] = {  # as the daemon opens them in its state directory
    "sqlite": lambda state: open_sqlite(state / "sessions.db"),
    "file": lambda state: open_files(made(state / "store")),
}


def start_figures(work: Path, stored: int, rounds: int) -> Json:
    """Each store with that many sessions and with none, in turns."""
    seconds: dict[str, list[float]] = {"json_program": []}
    for name, opening in STORES.items():
        (work / name).mkdir(mode=0o700)
        (work / f"{name}.toml").write_text(f'store = "{name}:"\n')
        trio.run(_fill, partial(opening, work / name), stored)
    _write_json(work / "json", stored)
    for turn in range(rounds + 1):
        found = {"json_program": timed(partial(_read_json, work / "json"))}
        for name in STORES:
            settings = ("--config", str(work / f"{name}.toml"))
            for state in (None, work / name):
                with running_daemon(*settings, state=state) as daemon:
                    label = f"{name}_{'empty' if state is None else 'stored'}"
                    found[label] = daemon.ready_seconds
        if turn > 0:  # the first one warms up
            for label, took in found.items():
                seconds.setdefault(label, []).append(took)
    return {"sessions": stored, **{label: spread(took) for label, took in seconds.items()}}


def _session(number: int) -> Change:
    """A session with one whole turn behind it."""
    name, at = f"{number:026d}", 1.7e9 + number
    tokens = TokenUsage(input_tokens=1000, output_tokens=150)
    cost = CostBody(provider="openai", model="gpt", tokens=tokens, micros=310, window=200_000)
    log: list[tuple[Kind, bytes]] = [
        (Kind.STATE, encode_body(StateBody(state=Life.ACTIVE, by="local"))),
        (Kind.PROMPT, encode_body(PromptBody(by="local", position=0, text="Why does it fail?"))),
        (Kind.BEGIN, encode_body(BeginBody())),
        *[(Kind.MESSAGE, SAID)] * 3,
        (Kind.COST, encode_body(cost)),
        (
            Kind.VERDICT,
            encode_body(VerdictBody(outcome=Outcome.COMPLETED, stop_reason=StopReason.END_TURN)),
        ),
    ]
    head = Head(
        id=name,
        principal="local",
        owner=f"tui-{number % 7}",
        agent="scripted",
        mode=Mode.CODE,
        cwd=f"/home/user/projects/number-{number % 50}",
        created_at=at,
        updated_at=at,
        generation=1,
        prompts=(PromptRef(f"prompt-{number}", f"{number:064x}", 1, 2),),
        title=f"Why does test {number} fail?",
        totals=Totals(tokens=tokens, micros=310, used=1150, window=200_000),
        environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "SSH_AUTH_SOCK": "/run/user/1/ssh"},
    )
    entries = tuple(Entry(seq, at, kind, body, 1) for seq, (kind, body) in enumerate(log, 1))
    return Change(name, entries, head, create=True)


async def _fill(opening: Callable[[], AbstractAsyncContextManager[Store]], stored: int) -> None:
    async with opening() as store:
        for start in range(0, stored, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, stored))
            await store.commit([_session(number) for number in numbers])


def _write_json(folder: Path, stored: int) -> None:
    folder.mkdir()
    for number in range(stored):
        change = _session(number)
        entries = [
            {"seq": entry.seq, "kind": entry.kind, "body": msgspec.Raw(entry.body)}
            for entry in change.entries
        ]
        data = msgspec.json.encode({"head": change.head, "entries": entries})
        (folder / f"{change.session}.json").write_bytes(msgspec.json.format(data, indent=2))


def _read_json(folder: Path) -> None:
    command = [sys.executable, "-c", READER, str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=user_environment())

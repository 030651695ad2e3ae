"""A prompt's secret is in no file of any store, whatever agent, tools and model do with it."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
import trio

from moorage_daemon.app import App, open_app
from moorage_daemon.log_lines import LOG_FORMAT, LogLines
from moorage_daemon.settings import Flags, load_settings
from moorage_daemon.statedir import open_state_dir
from moorage_protocol.errors import TurnFailed
from moorage_protocol.moorage import PromptResult
from tests.daemon.canaries import command_lines_with, files_with, is_told
from tests.daemon.providers.fake import FakeProvider, Play, open_fake, refusing, saying
from tests.daemon.transfer.files import exported
from tests.daemon.twin import Client, Json, memory_pair


CANARY = "pg://canary:x+0123/\"ABC'DEF\\==@db"  # other bytes in JSON, in base64 and in a URL
CUT = [CANARY[at : at + 3] for at in range(0, len(CANARY), 3)]
PLAYS: list[Play] = [
    saying("It is ", *CUT, "."),
    refusing(400, {"error": {"code": CANARY, "type": CANARY, "message": f"bad: {CANARY}"}}),
    refusing(401, {"error": {"message": CANARY}}),
    refusing(302, location=f"https://example.org/?key={CANARY}"),
    saying("Goodbye."),
]
COMMANDS = (
    "cat",  # as it is
    "base64 -w 0",
    "od -An -tx1 -v | tr -d ' \\n'",
    "{ yes 'long' | head -c 300000; cat; }",  # an artifact
    "{ cat; exit 3; }",
    "{ cat > kept; ls -l kept; cat kept; }",
    "{ IFS= read -r it; eval \"no-such-program '${it%%\\'*}'\"; cat; }",
)


def prompt(client: Client, session: str, *texts: str, is_marked: bool = True) -> Json:
    """A prompt whose lines are blocks of their own; the canary is marked, or not."""
    mark = {"_meta": {"moorage": {"secret": True}}} if is_marked else {}
    blocks = [{"type": "text", "text": t, **(mark if t == CANARY else {})} for t in texts]
    return {"sessionId": session, "prompt": blocks, "_meta": {"moorage": {"promptId": uuid4().hex}}}


async def turn(client: Client, session: str, *texts: str, is_marked: bool = True) -> None:
    """One turn, all of whose questions are answered with yes."""
    params = prompt(client, session, *texts, is_marked=is_marked)
    with suppress(TurnFailed):
        await client.start("session/prompt", params, PromptResult).result()


async def answer_all(client: Client) -> None:
    asked = 0
    while True:
        await client.question(asked + 1) if len(client.questions) > asked else await client.news()
        for question in client.questions[asked:]:
            client.choose(question)
            asked += 1


async def turns_of_every_kind(client: Client, workspace: Path, *, is_marked: bool = True) -> bytes:
    """What an agent, its tools and its model can do with it; gives all sessions as files."""
    model = await client.new(cwd=str(workspace))
    for number in range(len(PLAYS)):
        await turn(client, model, f"turn {number}", CANARY, is_marked=is_marked)
    assert client.text(model).endswith("Goodbye.")
    scripted = await client.new(cwd=str(workspace), agent="scripted")
    await turn(client, scripted, CANARY, is_marked=is_marked)
    await turn(client, scripted, "/ask", CANARY, is_marked=is_marked)
    await turn(client, scripted, "/verify false", CANARY, is_marked=is_marked)
    await turn(client, scripted, "/write file ", CANARY, is_marked=is_marked)
    for command in COMMANDS:
        texts = (f"/run {command} <<'END'", CANARY, "END")
        await turn(client, scripted, *texts, is_marked=is_marked)
    rows = (await client.live()).sessions
    return b"".join([await exported(client, row.session_id) for row in rows])


@asynccontextmanager
async def client_of(app: App) -> AsyncGenerator[Client]:
    transport, wire = memory_pair()
    client = Client(wire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve, transport)
        nursery.start_soon(client.run)
        await client.initialize({})
        nursery.start_soon(answer_all, client)
        yield client
        nursery.cancel_scope.cancel()


def config(folder: Path, fake: FakeProvider, store: str) -> str:
    file = folder / "moorage.toml"
    file.write_text(
        f"""
        store = "{store}"
        default_agent = "native"
        [providers.one]
        kind = "openai"
        base_url = "{fake.base_url}"
        model = "small"
        retry_seconds = 0
        """
    )
    return str(file)


@pytest.mark.parametrize(
    ("store", "is_marked"), [("sqlite:", True), ("file:", True), ("sqlite:", False)]
)
async def test_secret_is_nowhere_after_turns_of_every_kind_and_the_same_unmarked_is_found(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_marked: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.handler.setFormatter(LogLines(LOG_FORMAT))
    state_path, workspace = tmp_path / "state", tmp_path / "work"
    workspace.mkdir()
    async with open_fake(*PLAYS) as fake:
        flags = Flags(config=config(tmp_path, fake, store), state_dir=str(state_path))
        settings = load_settings(flags)
        with open_state_dir(state_path) as state:
            async with open_app(settings, state) as app, client_of(app) as client:
                taken_out = await turns_of_every_kind(client, workspace, is_marked=is_marked)
                files_of_a_living_daemon = files_with(CANARY, state_path)
        model_heard = msgspec.json.encode(fake.asked)

    assert is_told(CANARY, model_heard), "that is what it was given for"
    assert (workspace / "kept").read_text() == f"{CANARY}\n", "a command ran with it"
    assert (workspace / "file").read_text() == f"\n{CANARY}"
    found = {
        "a file": bool(files_with(CANARY, state_path) + files_of_a_living_daemon),
        "an export": is_told(CANARY, taken_out),
        "a message": is_told(CANARY, msgspec.json.encode(client.messages)),
    }
    assert found == dict.fromkeys(found, not is_marked)
    assert not is_told(CANARY, caplog.text.encode()), "of neither anything is logged"
    assert command_lines_with(CANARY) == []

"""A provider's key is in the environment or the file where its user put it, and nowhere else."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import trio

from moorage_daemon.app import App, open_app
from moorage_daemon.settings import Flags, load_settings
from moorage_daemon.statedir import open_state_dir
from moorage_protocol.errors import InvalidParams, TurnFailed
from tests.daemon.canaries import FORMS, command_lines_with, files_with, is_told
from tests.daemon.providers.fake import FakeProvider, Play, open_fake, refusing, saying
from tests.daemon.providers.faults import cut_mid_stream, endless_line, hang, no_http
from tests.daemon.transfer.files import exported
from tests.daemon.twin import Client, memory_pair


CANARY = "sk-canary+0123456789/ABCDEF=="  # other bytes in base64 and in a URL
PLAYS: list[Play] = [
    saying("Hello."),
    refusing(401, {"error": {"code": CANARY, "message": f"Incorrect API key: {CANARY}"}}),
    refusing(400, {"error": {"type": CANARY}}),
    refusing(302, location=f"https://example.org/?key={CANARY}"),
    no_http,
    cut_mid_stream,
    endless_line,
    hang,
    saying("Hello again."),
]


def config(folder: Path, fake: FakeProvider, key: str) -> Path:
    file = folder / "moorage.toml"
    file.write_text(
        f"""
        default_agent = "native"
        [providers.one]
        kind = "openai"
        base_url = "{fake.base_url}"
        model = "small"
        first_token_seconds = 0.3
        retry_seconds = 0
        {key}
        """
    )
    return file


@asynccontextmanager
async def client_of(app: App) -> AsyncGenerator[Client]:
    transport, wire = memory_pair()
    client = Client(wire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve, transport)
        nursery.start_soon(client.run)
        await client.initialize({})
        yield client
        nursery.cancel_scope.cancel()


async def turns_of_every_kind(client: Client) -> None:
    """A turn for each play, and one that is cancelled."""
    session = await client.new()
    for number in range(len(PLAYS)):
        with suppress(TurnFailed):
            await client.prompt(session, f"turn {number}").result()
    assert client.text(session).endswith("Hello again.")


async def environment_of_a_tool(client: Client) -> str:
    """What a command sees of the environment."""
    session = await client.new(agent="scripted")
    reply = client.prompt(
        session,
        "/run env; cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline | tr -d '\\0'",
    )
    client.choose(await client.question())
    await reply.result()
    return msgspec.json.encode(client.of_session(session)).decode()


async def other_tries_to_leave_it(client: Client) -> bytes:
    """The key where a configuration might take it, and what the files of all sessions hold."""
    for bad in ({"apiKey": CANARY}, {"llmConfig": {"apiKey": CANARY}}, {"baseUrl": CANARY}):
        with pytest.raises(InvalidParams):
            await client.new(config=bad)
        with pytest.raises(InvalidParams):
            await client.new(overrides=bad)
    rows = (await client.live()).sessions
    return b"".join([await exported(client, row.session_id) for row in rows])


@pytest.mark.parametrize(
    ("place", "store"), [("variable", "sqlite:"), ("file", "sqlite:"), ("variable", "file:")]
)
async def test_key_is_nowhere_after_turns_of_every_kind(
    place: str,
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    state_path, secrets = tmp_path / "state", tmp_path / "secrets"
    secrets.mkdir(0o700)
    if place == "variable":
        monkeypatch.setenv("CANARY_KEY", CANARY)
        key = 'api_key_env = "CANARY_KEY"'
    else:
        (secrets / "key").write_text(CANARY)
        (secrets / "key").chmod(0o600)
        key = f'api_key_file = "{secrets / "key"}"'
    async with open_fake(*PLAYS) as fake:
        file = config(tmp_path, fake, key)
        file.write_text(f'store = "{store}"\n{file.read_text()}')
        flags = Flags(config=str(file), state_dir=str(state_path))
        settings = load_settings(flags)
        assert CANARY not in repr(settings)
        with open_state_dir(state_path) as state:
            async with open_app(settings, state) as app, client_of(app) as client:
                await turns_of_every_kind(client)
                shown = await environment_of_a_tool(client)
                taken_out = await other_tries_to_leave_it(client)
                assert command_lines_with(CANARY) == []

        assert [visit.headers["authorization"] for visit in fake.visits] == [
            f"Bearer {CANARY}"
        ] * len(PLAYS)
        assert not any(CANARY in msgspec.json.encode(body).decode() for body in fake.asked)
    assert "PATH=" in shown
    assert b"Hello again." in taken_out
    everything = msgspec.json.encode(client.messages) + taken_out + caplog.text.encode()
    everything += repr([vars(record) for record in caplog.records]).encode()
    assert not is_told(CANARY, everything)
    assert files_with(CANARY, state_path) == []
    assert len(list(state_path.iterdir())) > 2, "there was something to look through"


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    for name, write in FORMS.items():
        (tmp_path / name).write_text(f"...{write(CANARY)}...")

    assert len(files_with(CANARY, tmp_path)) == len(FORMS)

"""Tools that use what the client lends, in turns of the scripted agent on real files."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from moorage_daemon.agents.scripted import ScriptedAgent
from moorage_protocol.acp import Empty
from moorage_protocol.errors import InternalError, MethodNotFound, NotFound
from moorage_protocol.moorage import Outcome
from tests.daemon.harness import Daemon, open_daemon
from tests.daemon.ledger.test_grants import ask, create
from tests.daemon.twin import Client, Json


FILES: Json = {"fs": {"readTextFile": True, "writeTextFile": True}}
TERMINAL: Json = {"terminal": True}


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with open_daemon(agents=(ScriptedAgent(),), default_agent="scripted") as running:
        yield running


@pytest.fixture
async def editor(daemon: Daemon) -> Client:
    """An editor that lends all it has."""
    return await daemon.connect(plain=True, capabilities=FILES | TERMINAL)


async def auto(client: Client, session: str) -> None:
    params = {"sessionId": session, "modeId": "auto-edit"}
    await client.call("session/set_mode", params, Empty)


def calls(client: Client, session: str) -> list[Json]:
    """The updates of tool calls."""
    updates = [p["update"] for p in client.of_session(session) if "update" in p]
    return [update for update in updates if "toolCallId" in update]


def lent(client: Client) -> list[str]:
    """The requests that the client was sent, save questions."""
    sent = [m["method"] for m in client.messages if "id" in m and "method" in m]
    return [method for method in sent if method != "session/request_permission"]


# ---- reading


async def test_file_is_read_as_the_editor_has_it(editor: Client, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("saved")
    session = await editor.new(str(tmp_path))
    reply = editor.prompt(session, "/read a.txt")

    request = await editor.request("fs/read_text_file")
    editor.reply(request, {"content": "typed, not saved"})
    await reply.result()

    assert request["params"] == {"sessionId": session, "path": str(tmp_path / "a.txt")}
    assert editor.text(session) == "typed, not saved"


@pytest.mark.parametrize("refusal", [InternalError(), MethodNotFound(), NotFound()])
async def test_disk_is_read_where_the_editor_does_not(
    editor: Client, tmp_path: Path, refusal: Exception
) -> None:
    (tmp_path / "a.txt").write_text("saved")
    session = await editor.new(str(tmp_path))
    reply = editor.prompt(session, "/read a.txt")

    editor.reply(await editor.request("fs/read_text_file"), refusal)  # type: ignore[arg-type]
    await reply.result()

    assert editor.text(session) == "saved"


async def test_disk_is_read_when_the_editor_leaves(
    daemon: Daemon, editor: Client, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("saved")
    session = await editor.new(str(tmp_path))
    other = await daemon.connect()
    await other.attach(session)
    editor.prompt(session, "/read a.txt")
    await editor.request("fs/read_text_file")

    editor.leave()
    await other.until(lambda: other.verdicts(session) != {})

    assert other.text(session) == "saved"


async def test_editor_is_not_asked_for_what_lies_outside(editor: Client, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "secret").write_text("SECRET")
    (tmp_path / "w" / "link").symlink_to("../secret")
    session = await editor.new(str(tmp_path / "w"))
    await auto(editor, session)

    for words in ("/read ../secret", "/read link", "/write link x", "/write ../new x"):
        await editor.prompt(session, words).result()

    assert lent(editor) == []
    assert "SECRET" not in editor.text(session)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "w"]


async def test_only_the_client_that_prompted_is_asked(
    daemon: Daemon, editor: Client, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("saved")
    other = await daemon.connect(plain=True)
    session = await editor.new(str(tmp_path))
    await other.resume(session)

    await other.prompt(session, "/read a.txt").result()

    assert lent(editor) == lent(other) == []
    assert other.text(session) == "saved"


# ---- writing


async def test_difference_is_shown_before_anybody_decides(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    client = await daemon.connect(plain=True)
    session = await client.new(str(tmp_path))
    reply = client.prompt(session, "/write a.txt new text")

    question = await client.request("session/request_permission")

    place = str(tmp_path / "a.txt")
    diff = {"type": "diff", "path": place, "oldText": "old", "newText": "new text"}
    call = question["params"]["toolCall"]
    assert (call["content"], call["kind"], call["locations"]) == ([diff], "edit", [{"path": place}])
    assert (tmp_path / "a.txt").read_text() == "old"
    client.choose(await client.question())
    await reply.result()
    assert (tmp_path / "a.txt").read_text() == "new text"
    shown = calls(client, session)
    assert [update.get("content") for update in shown] == [None, [diff], None, None]
    assert [update.get("status") for update in shown] == [
        "pending",
        None,
        "in_progress",
        "completed",
    ]


async def test_new_file_has_no_old_text(daemon: Daemon, tmp_path: Path) -> None:
    client = await daemon.connect(plain=True)
    session = await client.new(str(tmp_path))
    await auto(client, session)

    await client.prompt(session, "/write a.txt text").result()

    assert (tmp_path / "a.txt").read_text() == "text"
    [diff] = [u["content"][0] for u in calls(client, session) if "content" in u]
    assert diff == {"type": "diff", "path": str(tmp_path / "a.txt"), "newText": "text"}


async def test_file_that_is_no_text_is_replaced_without_a_difference(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    (tmp_path / "b").write_text("x" * 100_000)
    client = await daemon.connect(plain=True)
    session = await client.new(str(tmp_path))
    await auto(client, session)

    for name in ("a", "b"):
        await client.prompt(session, f"/write {name} text").result()

    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["text", "text"]
    assert "diff" not in str(client.messages)


async def test_what_cannot_be_written_fails_before_anybody_is_asked(
    daemon: Daemon, tmp_path: Path
) -> None:
    client = await daemon.connect()
    session = await client.new(str(tmp_path))

    await client.prompt(session, "/write nowhere/a.txt text").result()
    await client.prompt(session, "/write ../a.txt text").result()

    assert client.questions == []
    assert "does not exist" in client.text(session)
    assert "leads out" in client.text(session)
    kinds = [entry["kind"] for entry in await client.entries(session)]
    assert (kinds.count("result"), kinds.count("intent")) == (2, 0)


async def test_editor_writes_where_it_lends_that(editor: Client, tmp_path: Path) -> None:
    session = await editor.new(str(tmp_path))
    await auto(editor, session)
    reply = editor.prompt(session, "/write a.txt text")

    editor.reply(await editor.request("fs/read_text_file"), NotFound())
    request = await editor.request("fs/write_text_file")
    assert not reply.arrived.is_set()
    editor.reply(request, {})
    await reply.result()

    assert request["params"] == {
        "sessionId": session,
        "path": str(tmp_path / "a.txt"),
        "content": "text",
    }
    assert list(tmp_path.iterdir()) == []  # that is the editor's part


async def test_editor_that_refuses_to_write_is_heeded_and_one_that_cannot_is_not_needed(
    editor: Client, tmp_path: Path
) -> None:
    session = await editor.new(str(tmp_path))
    await auto(editor, session)
    for number, (name, refusal) in enumerate(
        {"refused.txt": InternalError(), "unserved.txt": MethodNotFound()}.items(), 1
    ):
        reply = editor.prompt(session, f"/write {name} text")
        editor.reply(await editor.request("fs/read_text_file", number), NotFound())
        editor.reply(await editor.request("fs/write_text_file", number), refusal)
        await reply.result()

    assert [path.name for path in tmp_path.iterdir()] == ["unserved.txt"]
    assert "did not write" in editor.text(session)


async def test_cancel_takes_back_what_the_editor_was_asked_for(
    editor: Client, tmp_path: Path
) -> None:
    session = await editor.new(str(tmp_path))
    reply = editor.prompt(session, "/read a.txt")
    request = await editor.request("fs/read_text_file")

    editor.notify("session/cancel", {"sessionId": session})

    assert (await reply.result()).stop_reason == "cancelled"
    await editor.until(lambda: request["id"] in editor.retracted)
    editor.reply(request, {"content": "too late"})
    assert (await editor.prompt(session, "still here?").result()).stop_reason == "end_turn"
    assert "too late" not in editor.text(session)


# ---- what it costs


async def paid(client: Client, grant: str) -> int:
    """How many calls count."""
    return int((await ask(client, "get", grantId=grant))["used"]["calls"])


async def on_grant(client: Client, path: Path, **wish: object) -> tuple[str, str]:
    """A session on a grant that permits everything; gives both ids."""
    grant = await create(client, agent="scripted", tools=None)
    return await client.new(str(path), grant={"grantId": grant}, **wish), grant


CREATE, WRITE = "terminal/create", "fs/write_text_file"


@pytest.mark.parametrize(
    ("words", "method", "answer", "calls"),
    [
        ("/terminal make", CREATE, InternalError(), 0),
        ("/terminal make", CREATE, MethodNotFound(), 0),
        ("/terminal make", CREATE, {"nothing": 1}, 1),  # whether it was started nobody knows
        ("/write a.txt text", WRITE, InternalError(), 0),
        ("/write a.txt text", WRITE, [], 1),
        ("/write a.txt text", WRITE, MethodNotFound(), 1),  # then the disk is written
    ],
)
async def test_what_an_editor_refuses_is_not_paid_for_and_what_is_unclear_is(
    daemon: Daemon, tmp_path: Path, words: str, method: str, answer: object, calls: int
) -> None:
    editor = await daemon.connect(capabilities=FILES | TERMINAL)
    session, grant = await on_grant(editor, tmp_path)
    await auto(editor, session)
    reply = editor.prompt(session, words)

    if method == WRITE:
        editor.reply(await editor.request("fs/read_text_file"), NotFound())
    else:
        editor.choose(await editor.question())
    editor.reply(await editor.request(method), answer)  # type: ignore[arg-type]
    await reply.result()

    assert await paid(editor, grant) == calls


async def test_terminal_of_an_editor_that_leaves_stays_paid(daemon: Daemon, tmp_path: Path) -> None:
    editor, other = await daemon.connect(capabilities=TERMINAL), await daemon.connect()
    session, grant = await on_grant(editor, tmp_path)
    await other.attach(session)
    editor.prompt(session, "/terminal make")
    editor.choose(await editor.question())
    await editor.request(CREATE)

    editor.leave()
    await other.until(lambda: other.verdicts(session) != {})

    assert await paid(other, grant) == 1


@pytest.mark.parametrize("is_asked_in_vain", [True, False])
async def test_call_that_nobody_allows_is_not_paid_for(
    daemon: Daemon, tmp_path: Path, *, is_asked_in_vain: bool
) -> None:
    client = await daemon.connect()
    session, grant = await on_grant(client, tmp_path)
    reply = client.prompt(session, "/run echo hello")

    client.choose(await client.question(), "reject" if is_asked_in_vain else "allow")
    await reply.result()

    assert await paid(client, grant) == (0 if is_asked_in_vain else 1)


@pytest.mark.parametrize(
    ("path", "words", "calls"),
    [
        ("/nowhere", "echo hello", 0),  # there is no shell
        ("/bin:/usr/bin", "no-such-program", 1),  # there is one, and it has looked for it
    ],
)
async def test_command_whose_shell_is_not_started_is_not_paid_for(
    daemon: Daemon, tmp_path: Path, path: str, words: str, calls: int
) -> None:
    client = await daemon.connect()
    session, grant = await on_grant(client, tmp_path, environment={"PATH": path})
    reply = client.prompt(session, f"/run {words}")

    client.choose(await client.question())
    await reply.result()

    assert await paid(client, grant) == calls


async def test_command_without_its_directory_is_not_paid_for(
    daemon: Daemon, tmp_path: Path
) -> None:
    client = await daemon.connect()
    (tmp_path / "w").mkdir()
    session, grant = await on_grant(client, tmp_path / "w")
    (tmp_path / "w").rmdir()
    reply = client.prompt(session, "/run echo hello")

    client.choose(await client.question())
    await reply.result()

    assert await paid(client, grant) == 0
    assert "could not be started" in client.text(session)


# ---- terminals


async def test_command_runs_in_the_editors_terminal(editor: Client, tmp_path: Path) -> None:
    session = await editor.new(str(tmp_path))
    reply = editor.prompt(session, "/terminal make all")
    question = await editor.question()
    assert lent(editor) == []
    editor.choose(question)

    create = await editor.request("terminal/create")
    editor.reply(create, {"terminalId": "t1"})
    editor.reply(await editor.request("terminal/wait_for_exit"), {"exitCode": 2})
    output = {"output": "made nothing", "truncated": False, "exitStatus": {"exitCode": 2}}
    editor.reply(await editor.request("terminal/output"), output)
    await reply.result()

    assert create["params"]["args"] == ["-c", "make all"]
    assert create["params"]["cwd"] == str(tmp_path)
    assert "made nothing\n[exit code 2]" in editor.text(session)
    released = await editor.request("terminal/release")
    assert released["params"] == {"sessionId": session, "terminalId": "t1"}


async def test_command_runs_here_for_a_client_without_terminals(
    daemon: Daemon, tmp_path: Path
) -> None:
    client = await daemon.connect(plain=True)
    session = await client.new(str(tmp_path))
    reply = client.prompt(session, "/terminal echo $((6*7))")

    client.choose(await client.question())
    await reply.result()

    assert client.text(session) == "42\n"
    assert lent(client) == []


async def waiting(editor: Client, tmp_path: Path) -> str:
    """A session whose command is running in the editor's terminal."""
    session = await editor.new(str(tmp_path))
    editor.prompt(session, "/terminal sleep 1000")
    editor.choose(await editor.question())
    editor.reply(await editor.request("terminal/create"), {"terminalId": "t1"})
    await editor.request("terminal/wait_for_exit")
    return session


async def test_cancel_ends_the_command_and_lets_go_of_the_terminal(
    editor: Client, tmp_path: Path
) -> None:
    session = await waiting(editor, tmp_path)

    editor.notify("session/cancel", {"sessionId": session})

    for method in ("terminal/kill", "terminal/release"):
        assert (await editor.request(method))["params"]["terminalId"] == "t1"
    wait = await editor.request("terminal/wait_for_exit")
    await editor.until(lambda: wait["id"] in editor.retracted)


async def test_kill_ends_the_command_and_counts_it(
    daemon: Daemon, editor: Client, tmp_path: Path
) -> None:
    session = await waiting(editor, tmp_path)
    operator = await daemon.connect()

    result = await operator.kill(session)

    assert (result.killed, result.processes) == (True, 1)
    for method in ("terminal/kill", "terminal/release"):
        assert (await editor.request(method))["params"]["terminalId"] == "t1"


async def test_editor_that_leaves_takes_its_terminal_and_not_the_turn(
    daemon: Daemon, editor: Client, tmp_path: Path
) -> None:
    session = await waiting(editor, tmp_path)
    other = await daemon.connect()
    await other.attach(session)

    editor.wire.outgoing.close()  # it sends no more, and still reads

    assert (await editor.request("terminal/release"))["params"]["terminalId"] == "t1"
    await other.until(lambda: other.verdicts(session) != {})
    assert other.verdicts(session)[1]["outcome"] == Outcome.COMPLETED
    assert "how the command ended is not known" in other.text(session)


async def test_program_in_a_terminal_of_the_client_is_none_of_our_own(
    daemon: Daemon, editor: Client, tmp_path: Path
) -> None:
    await waiting(editor, tmp_path)

    assert daemon.sessions.supervisors() == set()


async def test_client_that_prompts_again_after_a_break_is_the_one_that_is_asked(
    daemon: Daemon, tmp_path: Path
) -> None:
    """A bridge comes back on a new connection, with the same prompt."""
    hello: Json = {"instance": "one", "relay": True}
    first = await daemon.connect(hello=hello | {"tuiId": None}, capabilities=FILES)
    session = await first.new(str(tmp_path))
    first.prompt(session, "/ask go on?", promptId="p")
    await first.question()
    first.leave()

    again: Json = hello | {"tuiId": first.tui, "tuiSecret": first.secret}
    second = await daemon.connect(hello=again, capabilities=FILES)
    second.prompt(session, "/ask go on?", promptId="p")
    await second.question()

    turn = daemon.session(session).turn
    assert turn is not None
    assert turn.client is not None
    assert turn.client.reads_files


async def test_read_only_session_reads_and_leaves_files_and_terminals_alone(
    editor: Client, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("saved")
    session = await editor.new(str(tmp_path))
    params = {"sessionId": session, "modeId": "read-only"}
    await editor.call("session/set_mode", params, Empty)

    await editor.prompt(session, "/write a.txt text").result()
    await editor.prompt(session, "/terminal true").result()
    reply = editor.prompt(session, "/read a.txt")
    editor.reply(await editor.request("fs/read_text_file"), {"content": "typed"})
    await reply.result()

    assert lent(editor) == ["fs/read_text_file"]
    assert (tmp_path / "a.txt").read_text() == "saved"
    assert editor.text(session).count("read-only") == 2


async def test_nothing_of_a_turn_that_is_over_is_asked_of_anybody(
    editor: Client, tmp_path: Path
) -> None:
    session = await editor.new(str(tmp_path))
    reply = editor.prompt(session, "/read a.txt")
    editor.reply(await editor.request("fs/read_text_file"), {"content": "text"})
    await reply.result()

    await trio.testing.wait_all_tasks_blocked()

    assert lent(editor) == ["fs/read_text_file"]
    assert editor.retracted == []

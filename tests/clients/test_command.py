"""The `moorage` command as a script meets it: what it prints, and what it exits with."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import pytest
import trio

from moorage_clients.cli.exits import Exit
from tests.clients.fake_daemon import FakeDaemon, Message, Visitor, open_fake_daemon
from tests.clients.stub_daemon import ANSWERS, FAILS, environment_with, starts


MOORAGE = "import sys; from moorage_clients.cli import main; sys.exit(main())"
S = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def lines(self) -> list[Message]:
        return [json.loads(line) for line in self.out.splitlines()]


async def moorage(
    state_dir: Path, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Ended:
    """Run the command to its end, as a script does."""
    command = [sys.executable, "-c", MOORAGE, "--state-dir", str(state_dir), *words]
    ended = await trio.run_process(
        command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False, env=env,
        cwd=state_dir.parent,
    )  # fmt: skip
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with open_fake_daemon(tmp_path / "state") as fake:
        yield fake


async def visited(daemon: FakeDaemon, **moorage: Any) -> Visitor:
    """The conversation that a command holds, behind the handshake."""
    await daemon.accept()  # it first looks whether a daemon answers
    visitor = await daemon.accept()
    await visitor.greet(**moorage)
    return visitor


Serve = Callable[[Visitor], Awaitable[None]]


async def against(
    daemon: FakeDaemon, serve: Serve, *words: str, stdin: bytes = b"", **of_itself: Any
) -> Ended:
    """Run the command against a daemon that does what `serve` says behind the handshake.

    `of_itself` is what it says in that.
    """

    async def answer() -> None:
        await serve(await visited(daemon, **of_itself))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            ended = await moorage(daemon.state_dir, *words, stdin=stdin)
            nursery.cancel_scope.cancel()
    return ended


def row(session_id: str, cwd: str, *, killed: bool = False, title: str = "T") -> Message:
    live = {
        "sessionId": session_id, "agent": "scripted", "owner": "o", "principal": "local",
        "mode": "code", "cwd": cwd, "state": "idle", "generation": 1, "seq": 9, "queued": 0,
        "pendingPermissions": 0, "attached": 0, "createdAt": 1.0, "updatedAt": 1.0,
        "killed": killed, "title": title,
    }  # fmt: skip
    return {"sessionId": session_id, "cwd": cwd, "title": title, "_meta": {"moorage": live}}


PLAIN_CONFIG: Message = {
    "name": "",
    "workspace": "/",
    "storage": "sqlite",
    "parent": None,
    "labels": {},
}


async def list_one(visitor: Visitor, daemon: FakeDaemon) -> Message:
    """Answer the list with one session, of the directory the command runs in."""
    request = await visitor.expect("session/list")
    await visitor.answer(request, {"sessions": [row(S, str(daemon.state_dir.parent))]})
    return request


def update(seq: int, text: str) -> Message:
    chunk = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    mark = {"_meta": {"moorage": {"seq": seq, "generation": 1}}}
    return {"method": "session/update", "params": {"sessionId": S, "update": chunk, **mark}}


def entry(seq: int, kind: str, **fields: Any) -> Message:
    params = {"sessionId": S, "seq": seq, "kind": kind, "generation": 1, **fields}
    return {"method": "_moorage/session/entry", "params": params}


async def admit(visitor: Visitor) -> Message:
    request = await visitor.expect("session/prompt")
    prompt_id = request["params"]["_meta"]["moorage"]["promptId"]
    await visitor.send(**entry(1, "prompt", promptId=prompt_id, by="o", position=0, text="?"))
    return request


def ended(outcome: str, cause: str | None = None) -> Message:
    stop = "cancelled" if outcome == "cancelled" else "end_turn"
    verdict = {"generation": 1, "outcome": outcome, **({"cause": cause} if cause else {})}
    return {"stopReason": stop, "_meta": {"moorage": verdict}}


# ---- prompt


async def test_prompt_prints_the_agents_words_and_nothing_else(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        listed = await list_one(visitor, daemon)
        assert listed["params"] == {"cwd": str(daemon.state_dir.parent)}
        request = await admit(visitor)
        assert request["params"]["prompt"] == [{"type": "text", "text": "from a pipe\n"}]
        await visitor.send(**update(2, "hello \x1b[2J"))
        await visitor.send(**update(3, "you"))
        await visitor.answer(request, ended("completed"))

    found = await against(daemon, serve, "prompt", "-", stdin=b"from a pipe\n")

    assert found == Ended(Exit.OK, "hello you\n", "")


async def test_secrets_of_a_prompt_come_out_of_files_and_are_marked(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_text("a\nlong key\n")

    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await admit(visitor)
        mark = {"_meta": {"moorage": {"secret": True}}}
        assert request["params"]["prompt"] == [
            {"type": "text", "text": "use these"},
            {"type": "text", "text": "a\nlong key", **mark},
            {"type": "text", "text": "from a pipe", **mark},
        ]
        await visitor.answer(request, ended("completed"))

    found = await against(
        daemon, serve, "prompt", "use these", "--secret-file", str(file), "--secret-file", "-",
        stdin=b"from a pipe\r\n", secrets=True,
    )  # fmt: skip

    assert found == Ended(Exit.OK, "", "")


async def test_secret_is_not_sent_to_a_daemon_that_would_keep_it(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        with pytest.raises(EOFError):
            await visitor.receive()

    found = await against(
        daemon, serve, "prompt", "hi", "--secret-file", "-", stdin=b"a long secret"
    )

    assert found.code == Exit.FAILED
    assert "Nothing was sent" in found.err
    assert "moorage daemon stop" in found.err


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"a long secret", 0o644, "others may read it"),
        (b"", 0o600, "nothing in it"),
        (b"\xff" * 10, 0o600, "no text"),
        (b"x" * 70_000, 0o600, "too long"),
        (None, 0, "No such file"),
    ],
    ids=["open", "empty", "binary", "long", "missing"],
)
async def test_file_without_a_secret_is_refused(
    tmp_path: Path, content: bytes | None, mode: int, problem: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)

    found = await moorage(tmp_path / "state", "prompt", "hi", "--secret-file", str(file))

    assert found.code == Exit.USAGE
    assert problem in found.err


@pytest.mark.parametrize(
    ("outcome", "cause", "code"),
    [
        ("completed", None, Exit.OK),
        ("refused", None, Exit.FAILED),
        ("cancelled", "client_rpc", Exit.CANCELLED),
        ("cancelled", "shutdown", Exit.CANCELLED),
        ("cancelled", "admin_kill", Exit.KILLED),
    ],
    ids=["completed", "refused", "cancelled", "shutdown", "killed"],
)
async def test_exit_code_says_how_the_turn_ended(
    daemon: FakeDaemon, outcome: str, cause: str | None, code: Exit
) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await admit(visitor)
        await visitor.send(**entry(2, "verdict", outcome=outcome, cause=cause))
        await visitor.answer(request, ended(outcome, cause))

    found = await against(daemon, serve, "prompt", S[:4], "hi")

    assert found.code == code
    assert (cause or "") in found.err


async def test_failed_turn_exits_with_its_code_and_says_what_failed(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await admit(visitor)
        await visitor.send(**entry(2, "verdict", outcome="failed", code="provider_auth"))
        await visitor.refuse(request, -31009, "The turn failed", "provider_auth")

    assert await against(daemon, serve, "prompt", "hi") == Ended(
        Exit.FAILED,
        "",
        "[turn 1] failed (provider_auth): the provider refuses the key, or there is none\n",
    )


async def test_refused_prompt_says_why(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("session/prompt")
        assert request["params"]["_meta"]["moorage"]["onBusy"] == "refuse"
        await visitor.refuse(request, -31003, "The session is busy", "busy")

    found = await against(daemon, serve, "prompt", "hi", "--on-busy", "refuse")

    assert found == Ended(
        Exit.FAILED,
        "",
        "moorage: The daemon refused: The session is busy\n"
        "Wait for the turn that runs, or stop it with: moorage cancel\n",
    )


async def test_words_of_the_wire_are_kept_from_people_and_left_to_programs(
    daemon: FakeDaemon,
) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("session/prompt")
        await visitor.refuse(request, -32602, "Invalid params: too long", "invalid_params")

    told = await against(daemon, serve, "prompt", "hi")
    assert told.err == "moorage: The daemon refused: too long\n"

    document = await against(daemon, serve, "prompt", "hi", "--json")
    assert "The daemon refused: Invalid params: too long" in document.out


@pytest.mark.parametrize(
    ("code", "kind", "way_out"),
    [
        (-31002, "queue_full", "moorage cancel --scope queued"),
        (-31006, "expired", "moorage new"),
        (-31006, "closed", "moorage new"),
        (-31006, "too_many", "moorage grant close"),
        (-31007, "storage", "moorage store health"),
    ],
)
async def test_refused_prompt_says_what_can_be_done(
    daemon: FakeDaemon, code: int, kind: str, way_out: str
) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("session/prompt")
        await visitor.refuse(request, code, "No", kind)

    found = await against(daemon, serve, "prompt", "hi")

    assert found.code == Exit.FAILED
    assert found.err.startswith("moorage: The daemon refused: No\n")
    assert way_out in found.err


async def test_prompt_as_json_is_a_line_for_each_message_and_one_for_the_end(
    daemon: FakeDaemon,
) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await admit(visitor)
        await visitor.send(**update(2, "hi"))
        await visitor.answer(request, ended("cancelled", "client_rpc"))

    found = await against(daemon, serve, "prompt", "hi", "--json")

    admission, said, result = found.lines()
    assert (admission["type"], admission["kind"], admission["seq"]) == ("entry", "prompt", 1)
    assert (said["type"], said["update"]["content"]["text"]) == ("update", "hi")
    assert (result["type"], result["stopReason"], result["exit"]) == ("result", "cancelled", 5)
    assert result["verdict"]["cause"] == "client_rpc"


async def test_prompt_waits_for_a_daemon_that_is_restarted_in_mid_turn(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        prompt = await admit(visitor)
        await visitor.hang_up()
        again = await daemon.accept()
        await again.greet()
        attach = await again.expect("_moorage/session/attach")
        await again.answer(attach, snapshot(2))
        repeated = await again.expect("session/prompt")
        assert repeated["params"] == prompt["params"]
        await again.send(**update(2, "so far"))
        await again.answer(repeated, ended("cancelled", "daemon_restart"))

    found = await against(daemon, serve, "prompt", "hi")

    assert (found.code, found.out) == (Exit.CANCELLED, "so far\n")
    assert "Waiting for the daemon" in found.err
    assert "is back" in found.err


async def test_daemon_of_another_version_is_told_once(daemon: FakeDaemon) -> None:
    async def serve(daemon: FakeDaemon) -> None:
        await daemon.accept()
        visitor = await daemon.accept()
        other = {"version": "0.0\x1b[8m", "pid": 1, "node": "here"}
        await visitor.greet(daemon=other)
        await visitor.answer(await visitor.expect("session/list"), {"sessions": []})
        await visitor.answer(await visitor.expect("_moorage/session/live"), {"sessions": []})

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, daemon)
            found = await moorage(daemon.state_dir, "ls")

    [notice] = [line for line in found.err.splitlines() if "version" in line]
    assert notice.startswith("moorage: The daemon is of version 0.0")
    assert "\x1b" not in notice


@pytest.mark.parametrize("words", [("prompt", " "), ("prompt", "-")], ids=["blank", "no input"])
async def test_empty_prompt_is_refused_before_anything_is_started(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    found = await moorage(tmp_path / "state", *words)

    assert found == Ended(Exit.USAGE, "", "moorage: The prompt is empty.\n")
    assert not (tmp_path / "state").exists()


QUESTION = {
    "sessionId": S,
    "toolCall": {"toolCallId": "t", "title": "rm \x1b[8m", "rawInput": {"command": "rm"}},
    "options": [
        {"optionId": "1", "name": "Yes", "kind": "allow_once"},
        {"optionId": "2", "name": "Always", "kind": "allow_always"},
        {"optionId": "3", "name": "No", "kind": "reject_once"},
    ],
}


@pytest.mark.parametrize(("flag", "option"), [("--allow", "1"), ("--deny", "3")])
async def test_flag_answers_every_question(daemon: FakeDaemon, flag: str, option: str) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await admit(visitor)
        await visitor.send(id=1, method="session/request_permission", params=QUESTION)
        assert (await visitor.receive())["result"]["outcome"]["optionId"] == option
        await visitor.answer(request, ended("completed"))

    found = await against(daemon, serve, "prompt", "hi", flag)

    assert found == Ended(Exit.OK, "", f"[rm \\x1b[8m] {flag}\n")


async def read_until(stream: trio.abc.ReceiveStream | None, text: bytes) -> bytes:
    """Read what a command says up to `text`."""
    assert stream is not None
    said = b""
    while text not in said:
        more = await stream.receive_some()
        assert more, said
        said += more
    return said


@asynccontextmanager
async def running(daemon: FakeDaemon, *words: str) -> AsyncGenerator[trio.Process, None]:
    """The command while it runs; its stderr is to be read."""
    command = [sys.executable, "-c", MOORAGE, "--state-dir", str(daemon.state_dir), *words]
    process: trio.Process = await trio.lowlevel.open_process(
        command, stderr=PIPE, stdin=DEVNULL, cwd=daemon.state_dir.parent
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()
            assert process.stderr is not None
            await process.stderr.aclose()


async def test_question_without_a_person_or_a_flag_stays_open(daemon: FakeDaemon) -> None:
    was_put = trio.Event()

    async def serve() -> None:
        visitor = await visited(daemon)
        await list_one(visitor, daemon)
        request = await admit(visitor)
        await visitor.send(id=1, method="session/request_permission", params=QUESTION)
        await was_put.wait()
        await visitor.send(method="$/cancel_request", params={"requestId": 1})
        assert (await visitor.receive())["error"]["code"] == -32800
        await visitor.answer(request, ended("completed"))

    with trio.fail_after(60):
        async with running(daemon, "prompt", "hi") as process, trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            said = await read_until(process.stderr, b"--allow or --deny")
            was_put.set()
            code = await process.wait()

    assert code == Exit.OK
    assert b"Permission is asked: rm \\x1b[8m\n  command: rm\n" in said


async def test_ctrl_c_cancels_the_turn_and_a_second_one_leaves_it_running(
    daemon: FakeDaemon,
) -> None:
    asked: list[Message] = []
    is_asked = trio.Event()

    async def serve() -> None:
        visitor = await visited(daemon)
        await list_one(visitor, daemon)
        await admit(visitor)
        call = {"sessionUpdate": "tool_call", "toolCallId": "t", "title": "T"}
        mark = {"_meta": {"moorage": {"seq": 2, "generation": 1}}}
        shown = {"sessionId": S, "update": {**call, "status": "in_progress"}, **mark}
        await visitor.send(method="session/update", params=shown)
        asked.append(await visitor.expect("session/cancel"))
        is_asked.set()
        asked.append(await visitor.receive())

    with trio.fail_after(60):
        async with running(daemon, "prompt", "hi") as process, trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await read_until(process.stderr, b"[T] running")
            process.send_signal(signal.SIGINT)
            await read_until(process.stderr, b"Ctrl-C again")
            await is_asked.wait()
            process.send_signal(signal.SIGINT)
            code = await process.wait()

    assert code == Exit.DETACHED
    assert asked[0]["params"]["_meta"]["moorage"] == {"generation": 1}
    assert asked[1]["method"] == "_moorage/session/detach"


# ---- attach


def snapshot(seq: int) -> Message:
    return {
        "sessionId": S, "seq": seq, "access": "controller", "state": "idle", "queue": [],
        "pendingPermissions": [], "attached": 1,
    }  # fmt: skip


async def test_attach_shows_the_log_and_sends_lines_as_prompts_in_order(
    daemon: FakeDaemon,
) -> None:
    prompts: list[str] = []

    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("_moorage/session/attach")
        assert request["params"]["afterSeq"] == 4
        await visitor.answer(request, snapshot(6))
        await visitor.send(**update(5, "of before"))
        await visitor.send(**update(6, "."))
        requests = [await visitor.expect("session/prompt") for _ in range(3)]
        prompts.extend(request["params"]["prompt"][0]["text"] for request in requests)
        for request in requests:
            await visitor.answer(request, ended("completed"))

    lines = b"one\n\n two\nthree\n"
    found = await against(daemon, serve, "attach", S, "--from", "5", stdin=lines)

    assert prompts == ["one", " two", "three"]
    assert found == Ended(Exit.OK, "of before.\n", "")


async def test_script_that_says_nothing_sees_what_there_was(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        await visitor.answer(await visitor.expect("_moorage/session/attach"), snapshot(2))
        await trio.testing.wait_all_tasks_blocked(0.05)
        await visitor.send(**update(1, "of "))
        await visitor.send(**update(2, "before"))

    assert await against(daemon, serve, "attach") == Ended(Exit.OK, "of before\n", "")


async def test_quit_leaves_an_attachment(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        await visitor.answer(await visitor.expect("_moorage/session/attach"), snapshot(0))
        await visitor.expect("session/prompt")

    found = await against(daemon, serve, "attach", stdin=b"never answered\n/quit\n")

    assert found.code == Exit.OK


@pytest.mark.parametrize(
    ("reason", "code"), [("killed", Exit.KILLED), ("closed", Exit.OK), ("shutdown", Exit.NO_DAEMON)]
)
async def test_end_of_the_session_is_the_end_of_the_attachment(
    daemon: FakeDaemon, reason: str, code: Exit
) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("_moorage/session/attach")
        assert request["params"]["access"] == "observer"
        await visitor.answer(request, snapshot(0))
        notice = {"sessionId": S, "seq": 0, "reason": reason}
        await visitor.send(method="_moorage/session/detached", params=notice)

    assert (await against(daemon, serve, "attach", "--watch")).code == code


async def test_attachment_survives_a_lost_connection(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        await visitor.answer(await visitor.expect("_moorage/session/attach"), snapshot(0))
        await visitor.send(**update(1, "one "))
        await visitor.send_raw(b'{"jsonrpc":"2.0","meth')
        await visitor.hang_up()
        again = await daemon.accept()
        await again.greet()
        request = await again.expect("_moorage/session/attach")
        assert request["params"]["afterSeq"] == 1
        await again.answer(request, snapshot(2))
        await again.send(**update(2, "two"))
        notice = {"sessionId": S, "seq": 2, "reason": "killed"}
        await again.send(method="_moorage/session/detached", params=notice)

    found = await against(daemon, serve, "attach", "--watch")

    assert (found.code, found.out) == (Exit.KILLED, "one two\n")


# ---- the other commands


async def test_new_prints_the_id_and_spares_the_siblings(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        request = await visitor.expect("session/new")
        assert request["params"]["cwd"] == str(daemon.state_dir.parent)
        wish = request["params"]["_meta"]["moorage"]
        assert (wish["mode"], wish["keepSiblings"]) == ("chat", True)
        await visitor.answer(request, {"sessionId": S})

    found = await against(daemon, serve, "new", "--mode", "chat")

    assert found == Ended(Exit.OK, S + "\n", "")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("read", ["read: no tool of moorage has this name. Read has: case matters."]),
        ("Nope,Read", ["Nope: no tool of moorage has this name. Those are: Read, Write, "]),
        ("Read,Bash(git:*),mcp__files__*,mcp__files__get", []),
    ],
)
async def test_new_warns_of_tools_that_nobody_has_and_asks_for_them_all_the_same(
    daemon: FakeDaemon, rules: str, said: list[str]
) -> None:
    async def serve(visitor: Visitor) -> None:
        request = await visitor.expect("session/new")
        grant = request["params"]["_meta"]["moorage"]["grant"]
        assert grant["tools"] == rules.split(",")
        await visitor.answer(request, {"sessionId": S})

    found = await against(daemon, serve, "new", "--json", "--tools", rules)

    assert found.code == Exit.OK
    assert json.loads(found.out)["sessionId"] == S
    lines = found.err.splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))


async def test_list_is_a_table_of_what_is_not_killed(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        here = str(daemon.state_dir.parent)
        rows = [row(S, here, title="A\x1b[2J\ntitle"), row("k" * 26, here, killed=True)]
        await visitor.answer(await visitor.expect("session/list"), {"sessions": rows})
        await visitor.answer(await visitor.expect("_moorage/session/live"), {"sessions": []})

    found = await against(daemon, serve, "ls")

    head, line = found.out.splitlines()
    assert head.split() == ["ID", "STATE", "MODE", "AGE", "TITLE", "CWD"]
    assert line.split()[:4] == ["*", "abcd", "idle", "code"]
    assert f"A title  {daemon.state_dir.parent}" in line


@pytest.mark.parametrize(("variable", "coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
async def test_states_in_the_table_are_coloured_where_it_was_asked_for(
    daemon: FakeDaemon, variable: str, coloured: bool
) -> None:
    async def serve() -> None:
        visitor = await visited(daemon)
        found = row(S, "/", title="\x1b[31mred")
        found["_meta"]["moorage"]["state"] = "running"
        await visitor.answer(await visitor.expect("session/list"), {"sessions": [found]})
        await visitor.answer(await visitor.expect("_moorage/session/live"), {"sessions": []})

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            found = await moorage(daemon.state_dir, "ls", env={**os.environ, variable: "1"})

    line = found.out.splitlines()[1]
    assert ("\x1b[32mrunning\x1b[0m" in line) is coloured
    assert "\x1b[31m" not in line
    assert "  red  " in line


async def test_log_is_read_page_by_page_and_filtered_by_the_daemon(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("_moorage/session/entries")
        assert request["params"]["kinds"] == ["prompt"]
        first = {"seq": 1, "at": 1.5, "kind": "prompt", "generation": 1, "text": "\x1b[2Jhi"}
        await visitor.answer(request, {"entries": [first], "next": 1})
        request = await visitor.expect("_moorage/session/entries")
        assert request["params"]["after"] == 1
        second = {"seq": 7, "at": 2.5, "kind": "prompt", "generation": 2, "text": "ho"}
        await visitor.answer(request, {"entries": [second], "gap": False})

    found = await against(daemon, serve, "log", "--kind", "prompt")

    first, second = found.out.splitlines()
    assert first.split()[0] == "1"
    assert first.endswith('prompt    {"text": "\\u001b[2Jhi"}')
    assert second.split()[0] == "7"


@pytest.mark.parametrize(("verb", "state"), [("pause", "paused"), ("resume", "running")])
async def test_pause_and_resume_say_how_the_session_is_then(
    daemon: FakeDaemon, verb: str, state: str
) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect(f"_moorage/session/{verb}")
        assert request["params"] == {"sessionId": S}
        await visitor.answer(request, {"state": state})

    found = await against(daemon, serve, verb)
    as_json = await against(daemon, serve, verb, "abc", "--json")

    assert found == Ended(Exit.OK, f"{S}: {state}\n", "")
    assert as_json.lines() == [{"sessionId": S, "state": state}]


async def test_list_says_of_a_paused_session_what_its_last_turn_is_still_at(
    daemon: FakeDaemon,
) -> None:
    async def serve(visitor: Visitor) -> None:
        rows = [row(letter * 26, "/") for letter in "abc"]
        told = [found["_meta"]["moorage"] for found in rows]
        for each in told:
            each["state"] = "paused"
        told[0]["startedAt"] = told[1]["startedAt"] = 1.0
        told[1]["pendingPermissions"] = 1
        await visitor.answer(await visitor.expect("session/list"), {"sessions": rows})
        await visitor.answer(await visitor.expect("_moorage/session/live"), {"sessions": []})

    _, *lines = (await against(daemon, serve, "ls")).out.splitlines()

    assert "aaaa  paused, running  code" in lines[0]
    assert "bbbb  paused, asks     code" in lines[1]
    assert "cccc  paused           code" in lines[2]


async def test_kill_takes_several_and_tells_of_each(daemon: FakeDaemon) -> None:
    other = "b" * 26

    async def serve(visitor: Visitor) -> None:
        rows = [row(S, "/"), row(other, "/", killed=True)]
        await visitor.answer(await visitor.expect("session/list"), {"sessions": rows})
        request = await visitor.expect("session/kill")
        assert request["params"] == {"sessionId": S, "reason": "why"}
        result = {"killed": True, "cause": "admin_kill", "turns": [3], "processes": 2}
        await visitor.answer(request, {**result, "durable": True})
        await visitor.answer(await visitor.expect("session/kill"), {"killed": False})

    found = await against(daemon, serve, "kill", "abc", "bb", "--reason", "why")

    assert found == Ended(
        Exit.OK,
        f"{S}: killed, 1 turn cancelled, 2 processes ended\n{other}: was killed already\n",
        "",
    )


@pytest.mark.parametrize(
    ("words", "patch"),
    [
        (("model=m", "temperature=0.5"), {"model": "m", "temperature": 0.5}),
        (("model_provider=",), {"model_provider": None}),
        ((), {}),
    ],
    ids=["set", "clear", "show"],
)
async def test_configure_sends_what_was_said_and_no_more(
    daemon: FakeDaemon, words: tuple[str, ...], patch: Message
) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("session/configure")
        assert request["params"]["overrides"] == patch
        result: Message = {"overrides": {"model": "m"}, "applies": "next_turn"}
        await visitor.answer(request, {**result, "configOptions": []})
        if not words:
            shown = await visitor.expect("_moorage/session/config/get")
            await visitor.answer(shown, {"config": PLAIN_CONFIG})

    found = await against(daemon, serve, "configure", *words)

    assert found.out.startswith("model=m model_provider=(default) temperature=(default)")


async def test_cancel_says_what_was_found(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("session/cancel")
        assert request["params"]["_meta"]["moorage"] == {"scope": "all"}
        await visitor.answer(request, {"outcome": "fired", "generation": 4})

    assert await against(daemon, serve, "cancel", "--scope", "all") == Ended(
        Exit.OK, "turn 4: it stops\n", ""
    )


async def test_unknown_session_is_an_error_of_its_own_in_json_too(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)

    found = await against(daemon, serve, "cancel", "zzz", "--json")

    assert found.code == Exit.NO_SESSION
    assert found.lines()[0]["exit"] == Exit.NO_SESSION
    assert found.err == ""


# ---- the daemon


@pytest.mark.parametrize("words", [("status",), ("daemon", "status")], ids=" ".join)
async def test_asking_for_the_status_starts_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    found = await moorage(tmp_path / "state", *words)

    assert found.code == Exit.NO_DAEMON
    assert "No daemon runs" in found.err + found.out
    assert not (tmp_path / "state").exists()


STATUS: Message = {
    "version": "1.2.3",
    "pid": 7,
    "node": "here",
    "started": 0.0,
    "sessions": {"live": 1, "parked": 0, "byAgent": {}},
    "connections": 1,
    "turns": 0,
}


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ({"healthy": True, "low": False, "damaged": 0}, "healthy"),
        ({"healthy": False, "low": False, "damaged": 1}, "NOT HEALTHY, 1 session cannot be read"),
        (
            {"healthy": True, "low": True, "damaged": 2},
            "healthy, too little space for new sessions and turns, 2 sessions cannot be read",
        ),
    ],
    ids=["well", "damaged", "low"],
)
async def test_status_says_what_is_wrong_with_the_store(
    daemon: FakeDaemon, store: Message, said: str
) -> None:
    status = {**STATUS, "store": {"name": "file", **store}}

    async def serve() -> None:
        for _ in range(2):
            visitor = await daemon.accept()
            await visitor.greet()
            await visitor.answer(await visitor.expect("_moorage/status"), status)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            words = ("status", "--connect", daemon.address)
            found = await moorage(daemon.state_dir, *words)
            as_json = await moorage(daemon.state_dir, *words, "--json")

    assert f"store     file, {said}\n" in found.out
    assert json.loads(as_json.out)["store"] == status["store"]


async def test_daemon_is_started_found_and_stopped(tmp_path: Path) -> None:
    state_dir, env = tmp_path / "state", environment_with(tmp_path, ANSWERS)
    run = partial(moorage, state_dir, "--json", "daemon", env=env)
    with trio.fail_after(60):
        started = (await run("start", "--no-websocket")).lines()[0]
        again = (await run("start")).lines()[0]
        status = (await run("status")).lines()[0]
        stopped = (await run("stop")).lines()[0]
        nothing = await run("stop")

    (start,) = starts(state_dir)
    assert start["flags"] == ["--state-dir", str(state_dir), "--no-websocket"]
    assert (started["started"], again["started"]) == (True, False)
    assert status["pid"] == stopped["pid"] == start["pid"]
    assert (nothing.code, nothing.lines()) == (Exit.OK, [{"stopped": False, "pid": None}])


async def test_daemon_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    env = environment_with(tmp_path, FAILS)
    with trio.fail_after(60):
        found = await moorage(tmp_path / "state", "new", env=env)
        logs = await moorage(tmp_path / "state", "daemon", "logs")

    assert found.code == Exit.NO_DAEMON
    assert "unknown key 'stoer'" in found.err
    assert "unknown key 'stoer'" in logs.out


async def test_daemon_in_the_foreground_is_the_command_itself(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getpid(), os.getcwd(), *sys.argv[1:])"
    env = environment_with(tmp_path, program)
    with trio.fail_after(60):
        found = await moorage(tmp_path / "s", "daemon", "run", "--verbose", env=env)

    assert found.code == 0
    assert found.out.split()[1:] == [str(tmp_path), "--state-dir", str(tmp_path / "s"), "--verbose"]


async def test_reader_that_has_enough_of_the_output_is_no_error(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("_moorage/session/entries")
        entries = [{"seq": n, "at": 1.0, "kind": "x", "t": "y" * 90} for n in range(1, 2000)]
        await visitor.answer(request, {"entries": entries, "gap": False})

    async def answer() -> None:
        await serve(await visited(daemon))

    command = f"{sys.executable} -c '{MOORAGE}' --state-dir {daemon.state_dir} log | head -1"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            ended = await trio.run_process(
                ["bash", "-o", "pipefail", "-c", command], capture_stdout=True,
                capture_stderr=True, cwd=daemon.state_dir.parent,
            )  # fmt: skip

    assert len(ended.stdout.splitlines()) == 1
    assert ended.stderr == b""


def test_command_loads_nothing_before_it_knows_what_for() -> None:
    program = "import sys; import moorage_clients.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ},
    ).stdout.split()  # fmt: skip

    assert {"trio", "msgspec", "argparse", "json"} & set(loaded) == set()

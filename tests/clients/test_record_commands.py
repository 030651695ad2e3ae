"""What is on record of a session, and the session as a file, as a script meets them."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moorage_clients.cli import setup
from moorage_clients.cli.exits import Exit, Failure
from moorage_protocol.config import ConfigShown
from tests.clients.fake_daemon import FakeDaemon, Message, Visitor, open_fake_daemon
from tests.clients.test_command import PLAIN_CONFIG, S, against, list_one


NOW = ConfigShown(name="", workspace="/", storage="s", parent=None, labels={"a": "1", "b": "2"})
TOKENS = {"inputTokens": 1200, "outputTokens": 30, "cacheReadTokens": 1000}


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with open_fake_daemon(tmp_path / "state") as fake:
        yield fake


def cost_row(seq: int, model: str, micros: int | None) -> Message:
    row: Message = {"seq": seq, "at": 1.0, "provider": "one", "model": model, "tokens": TOKENS}
    return row if micros is None else {**row, "micros": micros}


# ---- usage


async def serve_usage(visitor: Visitor, daemon: FakeDaemon) -> None:
    await list_one(visitor, daemon)
    whole = {
        "context": {"used": 50, "size": 200, "fraction": 0.25, "turns": 3},
        "tokens": TOKENS,
        "cost": {"amount": 1.25, "currency": "USD"},
    }
    await visitor.answer(await visitor.expect("_moorage/session/usage"), {**whole, "records": []})
    first = await visitor.expect("_moorage/session/usage")
    assert first["params"]["limit"] == 1000
    rows = [cost_row(4, "small\x1b[2J", 1_000_000), cost_row(9, "small\x1b[2J", 250_000)]
    await visitor.answer(first, {**whole, "records": rows, "next": 9})
    second = await visitor.expect("_moorage/session/usage")
    assert second["params"]["after"] == 9
    await visitor.answer(second, {**whole, "records": [cost_row(12, "large", None)]})


async def test_usage_says_what_a_session_took_and_which_model_took_it(daemon: FakeDaemon) -> None:
    found = await against(daemon, lambda visitor: serve_usage(visitor, daemon), "usage")

    assert (found.code, found.err) == (Exit.OK, "")
    assert found.out.splitlines() == [
        "context  50 of 200 tokens (25%), 3 turns",
        "tokens   1,200 in, 30 out (1,000 cached)",
        "cost     1.25 USD",
        "  one/small: 2 answers, 2,400 in, 60 out (2,000 cached), 1.25 USD",
        "  one/large: 1 answer, 1,200 in, 30 out (1,000 cached), unknown: no price is set",
    ]


async def test_usage_in_json_has_every_answer(daemon: FakeDaemon) -> None:
    found = await against(daemon, lambda visitor: serve_usage(visitor, daemon), "usage", "--json")

    [document] = found.lines()
    assert document["sessionId"] == S
    assert document["cost"] == {"amount": 1.25, "currency": "USD"}
    assert [row["seq"] for row in document["records"]] == [4, 9, 12]


# ---- artifacts


async def serve_artifacts(visitor: Visitor, daemon: FakeDaemon) -> None:
    await list_one(visitor, daemon)
    row = {
        "seq": 17, "at": 1.0, "uri": f"moorage-artifact://{S}/17", "sha256": "0" * 64,
        "size": 5, "tool": "Run", "name": "call\x1b[2J.txt", "media": "text/plain", "shown": 2,
        "generation": 3,
    }  # fmt: skip
    request = await visitor.expect("_moorage/session/artifacts")
    await visitor.answer(request, {"artifacts": [row], "next": None})


async def test_artifacts_are_listed(daemon: FakeDaemon) -> None:
    found = await against(daemon, lambda visitor: serve_artifacts(visitor, daemon), "artifacts")

    header, line = found.out.splitlines()
    assert header.split() == ["SEQ", "TURN", "BYTES", "TOOL", "NAME"]
    assert line.split() == ["17", "3", "5", "Run", "call.txt"]


async def test_an_artifact_is_printed_as_it_is(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await serve_artifacts(visitor, daemon)
        for offset, piece in ((0, b"\x1b\x00a"), (3, b"b\n")):
            request = await visitor.expect("_moorage/artifact/get")
            assert request["params"] == {"uri": f"moorage-artifact://{S}/17"} | (
                {"offset": offset} if offset else {}
            )
            data = base64.b64encode(piece).decode()
            await visitor.answer(request, {"data": data, "size": 5})

    found = await against(daemon, serve, "artifacts", "--get", "17")

    assert (found.code, found.out) == (Exit.OK, "\x1b\x00ab\n")


async def test_an_artifact_that_is_not_there_is_said(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await serve_artifacts(visitor, daemon)

    found = await against(daemon, serve, "artifacts", "--get", "5")

    assert found.code == Exit.FAILED
    assert "there are: 17" in found.err


# ---- export, import


async def serve_export(visitor: Visitor, daemon: FakeDaemon) -> None:
    await list_one(visitor, daemon)
    for cursor, piece in ((None, b'{"moorage":1}\n'), ("c", b'{"end":{}}\n')):
        request = await visitor.expect("_moorage/session/export")
        assert request["params"].get("cursor") == cursor
        answer = {"data": base64.b64encode(piece).decode()}
        await visitor.answer(request, answer | ({"next": "c"} if cursor is None else {}))


async def test_export_writes_the_file_part_by_part(daemon: FakeDaemon) -> None:
    found = await against(daemon, lambda visitor: serve_export(visitor, daemon), "export")

    assert (found.code, found.out) == (Exit.OK, '{"moorage":1}\n{"end":{}}\n')


async def test_export_to_a_file_makes_a_private_one_and_never_overwrites(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "session.jsonl"
    words = ("export", "-o", str(path))
    found = await against(daemon, lambda visitor: serve_export(visitor, daemon), *words)

    assert found.code == Exit.OK, found
    assert path.read_bytes() == b'{"moorage":1}\n{"end":{}}\n'
    assert path.stat().st_mode & 0o777 == 0o600

    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)

    again = await against(daemon, serve, *words)
    assert again.code == Exit.FAILED
    assert "is there already" in again.err
    assert {file.name for file in tmp_path.iterdir()} == {"state", "session.jsonl"}


async def test_an_export_that_fails_leaves_no_file(daemon: FakeDaemon, tmp_path: Path) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        first = await visitor.expect("_moorage/session/export")
        await visitor.answer(first, {"data": "e30K", "next": "c"})
        second = await visitor.expect("_moorage/session/export")
        await visitor.refuse(second, -31010, "gone", "cursor_expired")

    found = await against(daemon, serve, "export", "-o", str(tmp_path / "x"))

    assert found.code == Exit.FAILED
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


async def test_an_export_to_nowhere_names_the_file_that_was_asked_for(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)

    path = tmp_path / "none" / "x"
    found = await against(daemon, serve, "export", "-o", str(path))

    assert found.code == Exit.FAILED
    assert found.err.splitlines()[0] == f"moorage: {path}: No such file or directory"


async def test_import_of_a_directory_says_how_one_is_imported(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    async def nothing(visitor: Visitor) -> None:
        pass

    found = await against(daemon, nothing, "import", str(tmp_path))

    assert found.code == Exit.FAILED
    assert "is a directory" in found.err
    assert f"moorage import {tmp_path} --a3s ID" in found.err


async def test_import_sends_a_file_in_parts_and_prints_the_id(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 40
    (tmp_path / "file").write_bytes(content)
    received = bytearray()

    async def serve(visitor: Visitor) -> None:
        begin = await visitor.expect("_moorage/import/begin")
        assert begin["params"] == {"keepId": True}
        await visitor.answer(begin, {"importId": "i", "maxPart": 4096})
        while len(received) < len(content):
            part = await visitor.expect("_moorage/import/part")
            assert part["params"].get("offset") == len(received)
            received.extend(base64.b64decode(part["params"]["data"]))
            await visitor.answer(part, {"offset": len(received)})
        result = {"sessionId": S, "entries": 9, "blobs": 1, "notes": ["left \x1b[2Jbehind: all"]}
        await visitor.answer(await visitor.expect("_moorage/import/finish"), result)

    words = ("import", str(tmp_path / "file"), "--keep-id")
    found = await against(daemon, serve, *words)

    assert (found.code, found.out, found.err) == (Exit.OK, f"{S}\n", "left behind: all\n")
    assert bytes(received) == content


async def test_import_reads_stdin_and_says_which_line_is_wrong(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        begin = await visitor.expect("_moorage/import/begin")
        await visitor.answer(begin, {"importId": "i", "maxPart": 4096})
        part = await visitor.expect("_moorage/import/part")
        problem = "Invalid params: line 1: it is none"
        await visitor.refuse(part, -32602, problem, "invalid_params")

    found = await against(daemon, serve, "import", "-", stdin=b"hello\n")

    assert found.code == Exit.FAILED
    assert "line 1: it is none" in found.err


async def test_import_of_a_file_that_is_not_there_or_empty_is_said(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    async def nothing(visitor: Visitor) -> None:
        pass

    missing = await against(daemon, nothing, "import", str(tmp_path / "none"))
    assert missing.code == Exit.FAILED
    assert "No such file" in missing.err

    async def serve(visitor: Visitor) -> None:
        begin = await visitor.expect("_moorage/import/begin")
        await visitor.answer(begin, {"importId": "i", "maxPart": 4096})

    empty = await against(daemon, serve, "import", "-")
    assert empty.code == Exit.FAILED
    assert "the file is empty" in empty.err


async def test_import_reads_a_directory_of_the_a3s_layout(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    document = {"id": "a", "llm_config": {"api_key": "sk-canary"}, "messages": [{"role": "user"}]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    received = bytearray()

    async def serve(visitor: Visitor) -> None:
        begin = await visitor.expect("_moorage/import/begin")
        await visitor.answer(begin, {"importId": "i", "maxPart": 4096})
        part = await visitor.expect("_moorage/import/part")
        received.extend(base64.b64decode(part["params"]["data"]))
        await visitor.answer(part, {"offset": len(received)})
        result: dict[str, object] = {"sessionId": S, "entries": 9, "blobs": 0, "notes": []}
        await visitor.answer(await visitor.expect("_moorage/import/finish"), result)

    found = await against(daemon, serve, "import", str(tmp_path), "--a3s", "a")

    assert (found.code, found.out) == (Exit.OK, f"{S}\n")
    assert [json.loads(line) for line in received.splitlines()] == [
        {"a3s": "session", "document": {"id": "a", "llm_config": {}}},
        {"message": {"role": "user"}},
        {"end": {"lines": 2}},
    ]


# ---- configure


@pytest.mark.parametrize(
    ("settings", "wish"),
    [
        ({"name": "Night shift"}, {"name": "Night shift"}),
        ({"name": ""}, {"name": None}),
        ({"system_prompt": "on"}, {"systemPrompt": "on"}),
        ({"max_context_length": "1000"}, {"maxContextLength": 1000}),
        (
            {"auto_compact": "on", "goal_tracking": "no"},
            {"autoCompact": True, "goalTracking": False},
        ),
        ({"auto_compact_threshold": "0.5"}, {"autoCompactThreshold": 0.5}),
        ({"planning_mode": "disabled"}, {"planningMode": "disabled"}),
        ({"thinking": "on"}, {"thinking": {}}),
        ({"thinking": "off"}, {"thinking": None}),
        ({"thinking": "4096"}, {"thinking": {"budgetTokens": 4096}}),
        ({"tools": "bash,read"}, {"tools": ["bash", "read"]}),
        ({"tools": '["bash"]'}, {"tools": ["bash"]}),
        ({"permissions": '{"deny": ["Fetch"]}'}, {"permissions": {"deny": ["Fetch"]}}),
        ({"security": '{"any": [1, null]}'}, {"security": {"any": [1, None]}}),
        ({"label.c": "3"}, {"labels": {"a": "1", "b": "2", "c": "3"}}),
        ({"label.a": "", "label.b": "x"}, {"labels": {"b": "x"}}),
    ],
)
def test_words_become_a_change_of_the_configuration(
    settings: dict[str, str], wish: dict[str, Any]
) -> None:
    found = setup.wish(tuple(settings.items()), NOW)

    assert json.loads(msgspec.json.encode(found)) == wish


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (("lanes", "many"), "JSON"),
        (("max_context_length", "0"), "maxContextLength"),
        (("planning_mode", "never"), "planningMode"),
        (("auto_compact", "1.5"), "autoCompact"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_before_anything_is_sent(
    setting: tuple[str, str], problem: str
) -> None:
    with pytest.raises(Failure, match=problem) as caught:
        setup.wish([setting], NOW)

    assert caught.value.code == Exit.USAGE


def test_a_system_prompt_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("Be brief.\n")

    found = setup.wish([("system_prompt", f"@{tmp_path}/prompt")], NOW)

    assert found.system_prompt == "Be brief.\n"


@pytest.mark.parametrize("content", [None, b"\xff"], ids=["missing", "binary"])
def test_a_system_prompt_that_cannot_be_read_is_a_wrong_command_line(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "prompt").write_bytes(content)

    with pytest.raises(Failure, match=f"^system_prompt=@{tmp_path}/prompt: ") as caught:
        setup.wish([("system_prompt", f"@{tmp_path}/prompt")], NOW)

    assert caught.value.code == Exit.USAGE


async def test_configure_shows_what_is_not_as_it_is_by_itself(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        overrides: Message = {"overrides": {}, "applies": "now", "configOptions": []}
        await visitor.answer(await visitor.expect("session/configure"), overrides)
        config = {
            **PLAIN_CONFIG, "systemPrompt": "Be \x1b[2Jbrief.\nAlways.", "autoCompact": True,
            "labels": {"tenant": "one"}, "permissions": {"deny": ["Fetch"]}, "goalTracking": False,
        }  # fmt: skip
        request = await visitor.expect("_moorage/session/config/get")
        await visitor.answer(request, {"config": config})

    found = await against(daemon, serve, "configure")

    first, *others = found.out.splitlines()
    assert first.startswith("model=(default)")
    assert sorted(others) == [
        "auto_compact=true",
        "label.tenant=one",
        'permissions={"deny": ["Fetch"]}',
        "system_prompt=Be brief. Always.",
    ]


async def test_configure_of_the_session_alone_leaves_the_model_alone(daemon: FakeDaemon) -> None:
    async def serve(visitor: Visitor) -> None:
        await list_one(visitor, daemon)
        request = await visitor.expect("_moorage/session/config/get")
        await visitor.answer(request, {"config": PLAIN_CONFIG})
        request = await visitor.expect("_moorage/session/config/set")
        assert request["params"]["config"] == {"name": "Night shift"}
        await visitor.answer(request, {"config": {**PLAIN_CONFIG, "name": "Night shift"}})

    found = await against(daemon, serve, "configure", "name=Night shift", "--json")

    [document] = found.lines()
    assert document["config"]["name"] == "Night shift"
    assert "overrides" not in document

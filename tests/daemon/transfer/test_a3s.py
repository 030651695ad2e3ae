"""Sessions of the a3s layout: every part has its place, and what has none is kept as it came."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from moorage_clients import a3s
from moorage_daemon.store.model import Life
from moorage_daemon.store.port import MAX_BLOB
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import Cause, Outcome, TokenUsage
from moorage_protocol.views import CheckStatus, ReportsResult, TracesResult, UsageResult
from tests.daemon.harness import Daemon, simulated
from tests.daemon.test_artifacts import content, rows
from tests.daemon.transfer.files import exported, imported
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)

DOCUMENT: Json = {
    "id": "session/a",
    "config": {
        "name": "Test Session",
        "workspace": "/tmp/workspace",
        "system_prompt": "You are helpful.",
        "max_context_length": 200_000,
        "auto_compact": True,
        "storage_type": "File",
        "queue_config": {"query_max_concurrency": 4},
        "confirmation_policy": {"enabled": True, "default_timeout_ms": 30_000},
        "permission_policy": {"allow": ["Bash(cargo:*)"]},
        "security_config": {"enabled": True},
        "planning_mode": "Enabled",
        "goal_tracking": True,
    },
    "state": "Paused",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {
            "role": "assistant",
            "reasoning_content": "Hm.",
            "content": [
                {"type": "text", "text": "Hi there!"},
                {"type": "tool_use", "id": "t1", "name": "bash", "input": {"command": "ls"}},
            ],
        },
        {"role": "user", "content": [{"type": "text", "text": "More"}]},
    ],
    "context_usage": {"used_tokens": 100, "max_tokens": 200_000, "percent": 0.0005, "turns": 2},
    "total_usage": {"prompt_tokens": 50, "completion_tokens": 50, "total_tokens": 100},
    "total_cost": 0.25,
    "cost_records": [
        {
            "model": "m",
            "provider": "p",
            "prompt_tokens": 50,
            "completion_tokens": 50,
            "total_tokens": 100,
            "cost_usd": 0.25,
            "timestamp": "1998-07-09T16:00:00Z",
        }
    ],
    "tool_names": ["bash", "read"],
    "thinking_enabled": True,
    "thinking_budget": 4096,
    "created_at": 900000000,
    "updated_at": 1700000100,
    "llm_config": {
        "provider": "anthropic",
        "model": "claude",
        "api_key": "sk-canary",
        "base_url": "https://me:sk-canary@example.org/v1?key=sk-canary",
    },
    "todos": [{"id": "1", "content": "Look", "status": "in_progress", "priority": "high"}],
    "of_tomorrow": {"kept": [1, 2]},
}
RUN = {
    "snapshot": {"id": "r", "session_id": "session/a", "status": "cancelled", "prompt": "alone"},
    "events": [{"sequence": 0, "timestamp_ms": 1, "event": {"type": "start"}}],
}
KNOWN_RUN = {"snapshot": {"prompt": "Hello", "status": "completed"}, "events": [{"sequence": 0}]}
REPORT = {
    "schema": "a3s.verification_report.v1",
    "subject": "program:test",
    "status": "passed",
    "checks": [
        {
            "id": "check:test",
            "kind": "test",
            "description": "Run tests",
            "status": "passed",
            "required": True,
        }
    ],
}
TRACE = {
    "schema": "a3s.trace_event.v1",
    "kind": "tool_execution",
    "name": "read",
    "success": True,
    "exit_code": 0,
    "duration_ms": 9,
    "output_bytes": 12,
    "metadata_keys": ["artifact"],
    "artifact_uris": ["a3s://tool-output/read/abc"],
}
ARTIFACT = {
    "artifact_id": "tool-output:test:a",
    "artifact_uri": "a3s://tool-output/test/a",
    "tool_name": "test",
    "content": "artifact content",
    "original_bytes": 16,
    "shown_bytes": 4,
}


def laid_out(folder: Path, document: Json = DOCUMENT) -> Path:
    """A directory as that program leaves it."""
    for name, found in (
        ("session_a.json", document),
        ("traces/session_a.json", [TRACE]),
        ("runs/session_a.json", [KNOWN_RUN, RUN]),
        ("verification/session_a.json", [REPORT]),
        ("artifacts/session_a/artifacts.json", {"artifacts": [ARTIFACT]}),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2))
    return folder


async def test_every_part_has_its_place(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    file = b"".join(a3s.lines(laid_out(tmp_path), "session/a"))

    result = await imported(client, file)

    session = result.session_id
    head = daemon.sessions.head(session)
    assert head is not None
    assert (head.title, head.cwd, head.life) == ("Test Session", "/tmp/workspace", Life.PAUSED)
    assert (head.created_at, head.generation) == (900000000.0, 3)
    assert head.overrides.model == "claude"
    config = json.loads(msgspec.json.encode(head.config))
    assert config == {
        "systemPrompt": "You are helpful.",
        "maxContextLength": 200_000,
        "autoCompact": True,
        "autoCompactThreshold": 0.8,
        "lanes": {},
        "confirmation": {"timeoutSeconds": 30.0},
        "permissions": {},
        "planningMode": "enabled",
        "goalTracking": True,
        "thinking": {"budgetTokens": 4096},
        "tools": ["bash", "read"],
        "security": {"enabled": True},
    }
    params = {"sessionId": session}
    usage = await client.call("_moorage/session/usage", params, UsageResult)
    assert usage.tokens == TokenUsage(input_tokens=50, output_tokens=50)
    assert (usage.context.used, usage.context.fraction) == (100, 0.0005)
    assert [(r.model, r.micros, r.at) for r in usage.records] == [("m", 250_000, 900000000.0)]
    [trace] = (await client.call("_moorage/session/traces", params, TracesResult)).traces
    assert (trace.tool, trace.exit_code, trace.duration_ms) == ("read", 0, 9)
    assert trace.artifacts == ("a3s://tool-output/read/abc",)
    [report] = (await client.call("_moorage/session/reports", params, ReportsResult)).reports
    assert (report.report.subject, report.status) == ("program:test", CheckStatus.PASSED)
    [artifact] = await rows(client, session)
    assert (artifact.artifact_id, artifact.artifact_uri, artifact.shown) == (
        "tool-output:test:a",
        "a3s://tool-output/test/a",
        4,
    )
    assert await content(client, artifact.uri) == b"artifact content"
    turns = await client.turns(session)
    verdicts = [turn.verdict for turn in turns if turn.verdict is not None]
    assert [turn.prompt for turn in turns] == ["Hello", "More", "alone"]
    assert [(v.outcome, v.cause) for v in verdicts] == [
        (Outcome.COMPLETED, None),
        (Outcome.COMPLETED, None),
        (Outcome.CANCELLED, Cause.CLIENT_RPC),
    ]
    await client.load(session)
    assert client.text(session) == "Hi there!"
    assert result.notes == [
        "permissions: allow Bash(cargo:*): left behind, as nobody here has allowed it"
    ]


async def test_what_has_no_place_is_kept_and_keys_are_not(
    daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    lines = [*a3s.lines(laid_out(tmp_path), "session/a")]
    first = json.loads(lines[0])
    first["document"]["llm_config"]["api_key"] = "sk-canary"  # a client that is less careful
    lines[0] = json.dumps(first).encode() + b"\n"

    session = (await imported(client, b"".join(lines))).session_id

    kept = await client.entries(session, kinds=["a3s"])
    assert kept[0]["document"]["of_tomorrow"] == {"kept": [1, 2]}
    assert kept[0]["document"]["llm_config"] == {
        "provider": "anthropic",
        "model": "claude",
        "base_url": "https://example.org/v1",
    }
    assert [entry["block"]["id"] for entry in kept if "block" in entry] == ["t1"]
    assert len([entry for entry in kept if "event" in entry]) == 2
    assert not any(b"canary" in entry.body for entry in await daemon.log(session))


async def test_rules_that_allow_are_taken_over_where_whoever_brings_them_says_so(
    daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    file = b"".join(a3s.lines(laid_out(tmp_path), "session/a"))

    session = (await imported(client, file, keepAllowed=True)).session_id
    again = (await imported(client, await exported(client, session))).session_id
    kept = await imported(client, await exported(client, session), keepAllowed=True)

    def allowed(session: str) -> tuple[str, ...]:
        head = daemon.sessions.head(session)
        assert head is not None
        assert head.config.permissions is not None
        return head.config.permissions.allow

    assert [allowed(s) for s in (session, again, kept.session_id)] == [
        ("Bash(cargo:*)",),
        (),
        ("Bash(cargo:*)",),
    ]
    assert kept.notes == []


NONSENSE: list[tuple[Json, str]] = [
    ({"state": "Unknown"}, "line 1: document.state"),
    ({"state": "Gone"}, "line 1: document.state"),
    ({"config": None}, "line 1: "),
    ({"messages": [{"content": []}]}, "line 2: "),
    ({"total_cost": 1e308}, "line 1: nothing costs that"),
    ({"updated_at": 1e300}, "line 1: "),
    ({"cost_records": [{"model": "m", "timestamp": "0001-01-01T00:00:00"}]}, "nothing was then"),
    ({"total_usage": {"prompt_tokens": "many"}}, "line 1: "),
    ({"config": {"auto_compact_threshold": 7}}, "line 1: "),
    ({"config": {"max_context_length": -7}}, "line 1: "),
]


@pytest.mark.parametrize(("change", "problem"), NONSENSE)
async def test_a_document_that_makes_no_sense_leaves_nothing(
    daemon: Daemon, client: Client, tmp_path: Path, change: Json, problem: str
) -> None:
    file = b"".join(a3s.lines(laid_out(tmp_path, DOCUMENT | change), "session/a"))

    with pytest.raises(InvalidParams, match=problem):
        await imported(client, file)

    await wait_all_tasks_blocked()
    assert await daemon.store.inner.list() == []


async def test_it_has_to_be_whole_and_gets_a_new_id(client: Client, tmp_path: Path) -> None:
    lines = [*a3s.lines(laid_out(tmp_path), "session/a")]

    with pytest.raises(InvalidParams, match="its last line is missing"):
        await imported(client, b"".join(lines[:-1]))
    with pytest.raises(InvalidParams, match="lines came"):
        await imported(client, b"".join([*lines[:2], *lines[3:]]))
    with pytest.raises(InvalidParams, match="under a new one"):
        await imported(client, b"".join(lines), keepId=True)


async def test_files_that_are_not_there_or_no_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(a3s.NoSession, match="has no session of that id"):
        list(a3s.lines(tmp_path, "nobody"))
    with pytest.raises(a3s.NoSession, match="is no directory"):
        list(a3s.lines(tmp_path / "nowhere", "nobody"))
    laid_out(tmp_path)
    broken: Any = tmp_path / "runs" / "session_a.json"
    broken.write_text("not json {{{")
    with pytest.raises(a3s.NoSession, match=r"runs/session_a\.json is not JSON"):
        list(a3s.lines(tmp_path, "session/a"))


def _link(path: Path) -> None:
    elsewhere = path.with_suffix(".elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _link_folder(path: Path) -> None:
    folder = path.parent
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (_link, "is a link"),
    "a folder that is a link": (_link_folder, "is a link"),
    "a pipe": (_pipe, "is no file"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-20]), "is not JSON"),
    "not a number": (lambda path: path.write_text("[NaN]"), "is not JSON"),
    "endless": (lambda path: path.write_text('[{"x":1e999}]'), "more than JSON can say"),
    "not text": (lambda path: path.write_bytes(b'["\xff"]'), "is not JSON"),
    "deep": (lambda path: path.write_text("[" * 200_000), "is not JSON"),
    "a folder": (_folder, "is no file"),
    "no list": (lambda path: path.write_text("{}"), "is no list"),
}


LARGE: Json = {"x": "x" * 600_000}


async def test_what_is_too_large_to_be_kept_is_left_behind_and_counted(
    daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    block = {"type": "image", **LARGE}
    messages = [{"role": "user", "content": [{"type": "text", "text": "Look"}, block, block]}]
    config = DOCUMENT["config"] | {"security_config": LARGE, "permission_policy": None}
    document = DOCUMENT | {"messages": messages, "config": config}
    file = b"".join(a3s.lines(laid_out(tmp_path, document), "session/a"))

    result = await imported(client, file)

    assert result.notes == [
        "left behind: a security configuration of 600008 bytes",
        "left behind: 3 parts of more than 524288 bytes",
    ]
    head = daemon.sessions.head(result.session_id)
    assert head is not None
    assert head.config.security is msgspec.UNSET


async def test_a_time_without_a_zone_is_one_of_the_whole_world(
    client: Client, tmp_path: Path
) -> None:
    cost = DOCUMENT["cost_records"][0] | {"timestamp": "1998-07-09T16:00:00"}
    file = b"".join(a3s.lines(laid_out(tmp_path, DOCUMENT | {"cost_records": [cost]}), "session/a"))

    params = {"sessionId": (await imported(client, file)).session_id}

    usage = await client.call("_moorage/session/usage", params, UsageResult)
    assert [row.at for row in usage.records] == [900000000.0]


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("part", ["traces", "verification", "runs"])
async def test_a_file_that_is_not_what_it_has_to_be_is_named(
    tmp_path: Path, how: str, part: str
) -> None:
    spoil, problem = SPOILT[how]
    spoil(laid_out(tmp_path) / part / "session_a.json")

    with pytest.raises(a3s.NoSession, match=problem) as caught:
        list(a3s.lines(tmp_path, "session/a"))

    assert part in str(caught.value) or how == "endless"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"content": 5}, "is no text"),
        ({"content": "\ud800"}, "is no text"),
        ({"content": "x" * (MAX_BLOB + 1)}, "has more than"),
    ],
)
async def test_an_artifact_without_a_text_that_can_be_kept_is_named(
    tmp_path: Path, fields: Json, problem: str
) -> None:
    manifest = laid_out(tmp_path) / "artifacts" / "session_a" / "artifacts.json"
    manifest.write_text(json.dumps({"artifacts": [ARTIFACT | fields]}))

    with pytest.raises(a3s.NoSession, match=problem):
        list(a3s.lines(tmp_path, "session/a"))
    manifest.write_text('{"artifacts": [7]}')
    with pytest.raises(a3s.NoSession, match="is no object"):
        list(a3s.lines(tmp_path, "session/a"))


@pytest.mark.parametrize("session", ["nul\0", "x" * 300, "../../etc/passwd", ".", ""])
async def test_no_id_leads_out_of_the_layout(tmp_path: Path, session: str) -> None:
    folder = laid_out(tmp_path / "inner")
    (tmp_path / "passwd.json").write_text(json.dumps(DOCUMENT))

    with pytest.raises((a3s.NoSession, OSError)):
        list(a3s.lines(folder, session))

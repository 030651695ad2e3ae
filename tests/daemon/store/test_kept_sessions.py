"""What an older store of sessions promised (TP-01 to TP-33), on each backend that it fits.

There, a file store and a memory store had these promises apart; here all backends have all of
them. Where a file's name was part of a promise, what it was for is checked instead: one session,
one place, inside the store's own directory.
"""

from pathlib import Path

import msgspec
import pytest
import trio
from msgspec import Raw
from msgspec.structs import replace

from moorage_daemon.store.model import Head, Kind
from moorage_daemon.store.port import Change, Store, StoreBroken, StoreConflict, StoreUnreadable
from moorage_protocol.config import Confirmation, Lanes, Permissions, SessionConfig
from moorage_protocol.errors import InvalidParams
from moorage_protocol.lenient import decode_own
from moorage_protocol.moorage import Overrides, OverridesPatch
from moorage_protocol.views import Check, CheckStatus, Verification
from tests.daemon.store.backends import Backend
from tests.daemon.store.kept import (
    Artifact,
    Keeper,
    Message,
    Run,
    Session,
    Trace,
    a_session,
    with_message,
)
from tests.daemon.store.samples import a_head, an_entry, creation


RUN = Run("persist run", (Kind.BEGIN,))
READ = Trace(
    name="read",
    ok=True,
    exit_code=0,
    duration_ms=9,
    output_bytes=12,
    metadata_keys=("artifact",),
    artifacts=("a3s://tool-output/read/abc",),
)
ARTIFACT = Artifact(
    artifact_id="tool-output:test:a",
    artifact_uri="a3s://tool-output/test/a",
    tool_name="test",
    content="artifact content",
    original_bytes=16,
    shown_bytes=4,
)
GREP = Trace(name="grep", ok=False, exit_code=1, duration_ms=2, output_bytes=24)
REPORT = Verification(
    subject="program:test",
    checks=(Check("check:test", "test", "Run tests", CheckStatus.PASSED, required=True),),
)


# ---- save, load, delete


async def test_tp01_save_and_load(store: Store) -> None:
    keeper, session = Keeper(store), a_session()

    await keeper.save(session)

    loaded = await keeper.load(session.id)
    assert loaded == session
    assert loaded is not None
    assert (loaded.head.title, len(loaded.messages)) == ("Test Session", 2)


async def test_tp02_load_nonexistent(store: Store) -> None:
    assert await Keeper(store).load("nonexistent") is None


async def test_tp03_delete(store: Store) -> None:
    keeper, session = Keeper(store), a_session()
    await keeper.save(session)
    assert await keeper.exists(session.id)

    await keeper.delete(session.id)

    assert not await keeper.exists(session.id)
    assert await keeper.load(session.id) is None


async def test_tp12_list(store: Store) -> None:
    keeper = Keeper(store)
    assert await keeper.ids() == []

    for number in (2, 1, 3):
        await keeper.save(a_session(f"session-{number}"))

    assert await keeper.ids() == ["session-1", "session-2", "session-3"]


async def test_tp13_overwrite(store: Store) -> None:
    keeper, session = Keeper(store), a_session()
    await keeper.save(session)

    await keeper.save(with_message(session, "Another message", 1700000200.0))

    loaded = await keeper.load(session.id)
    assert loaded is not None
    assert len(loaded.messages) == 3
    assert loaded.head.updated_at == 1700000200.0
    assert await store.tip(session.id) == 3, "what was there is not written again"


async def test_tp17_memory_store_save_and_load(store: Store) -> None:
    keeper = Keeper(store)
    await keeper.save(a_session())

    loaded = await keeper.load("test-session-1")

    assert loaded is not None
    assert loaded.id == "test-session-1"


async def test_tp18_memory_store_delete(store: Store) -> None:
    keeper = Keeper(store)
    await keeper.save(a_session())
    was_there = await keeper.exists("test-session-1")

    await keeper.delete("test-session-1")

    assert (was_there, await keeper.exists("test-session-1")) == (True, False)


async def test_tp19_memory_store_list(store: Store) -> None:
    keeper = Keeper(store)
    for number in (1, 2, 3):
        await keeper.save(a_session(f"session-{number}"))

    assert len(await keeper.ids()) == 3


async def test_tp25_exists(store: Store) -> None:
    keeper = Keeper(store)
    before = await keeper.exists("test-session-1")
    await keeper.save(a_session())
    saved = await keeper.exists("test-session-1")
    await keeper.delete("test-session-1")

    assert (before, saved, await keeper.exists("test-session-1")) == (False, True, False)


async def test_tp26_memory_store_exists(store: Store) -> None:
    keeper = Keeper(store)
    assert not await keeper.exists("unknown-id")

    await keeper.save(a_session("known-id"))

    assert await keeper.exists("known-id")


async def test_tp33_load_nonexistent_returns_none(store: Store) -> None:
    assert await Keeper(store).load("does-not-exist-at-all") is None


# ---- the lists beside a session


async def test_tp04_save_and_load_artifacts(store: Store) -> None:
    keeper = Keeper(store)

    await keeper.save_artifacts("session/a", [ARTIFACT])

    found = await keeper.load_artifacts("session/a")
    assert found == {"a3s://tool-output/test/a": ARTIFACT}


async def test_tp08_save_load_and_delete_artifacts(store: Store) -> None:
    keeper, session = Keeper(store), a_session()
    await keeper.save(session)
    await keeper.save_artifacts(session.id, [ARTIFACT])
    assert await keeper.load_artifacts(session.id) == {ARTIFACT.artifact_uri: ARTIFACT}

    await keeper.delete(session.id)

    assert await keeper.load_artifacts(session.id) is None
    assert (await store.collect(0)).blobs == 1, "its bytes go when nothing names them"


async def test_tp05_save_and_load_trace_events(store: Store) -> None:
    keeper = Keeper(store)

    await keeper.save_traces("session/a", [READ])

    assert await keeper.load_traces("session/a") == [READ]


async def test_tp06_save_and_load_run_records(store: Store) -> None:
    keeper = Keeper(store)

    await keeper.save_runs("session/a", [RUN])

    found = await keeper.load_runs("session/a")
    assert found is not None
    assert [(run.prompt, len(run.events)) for run in found] == [("persist run", 1)]


async def test_tp07_save_and_load_verification_reports(store: Store) -> None:
    keeper = Keeper(store)

    await keeper.save_reports("session/a", [REPORT])

    assert await keeper.load_reports("session/a") == [REPORT]
    assert REPORT.status is CheckStatus.PASSED


async def test_tp09_save_load_and_delete_trace_events(store: Store) -> None:
    keeper, session = Keeper(store), a_session()
    await keeper.save(session)
    await keeper.save_traces(session.id, [GREP])
    assert await keeper.load_traces(session.id) == [GREP]

    await keeper.delete(session.id)

    assert await keeper.load_traces(session.id) is None


async def test_tp10_save_load_and_delete_run_records(store: Store) -> None:
    keeper, session = Keeper(store), a_session()
    await keeper.save(session)
    await keeper.save_runs(session.id, [RUN])
    assert await keeper.load_runs(session.id) == [RUN]

    await keeper.delete(session.id)

    assert await keeper.load_runs(session.id) is None


async def test_tp11_save_load_and_delete_verification_reports(store: Store) -> None:
    keeper, session = Keeper(store), a_session()
    await keeper.save(session)
    await keeper.save_reports(session.id, [REPORT])
    assert await keeper.load_reports(session.id) == [REPORT]

    await keeper.delete(session.id)

    assert await keeper.load_reports(session.id) is None


async def test_the_lists_beside_a_session_leave_it_as_it_was(store: Store) -> None:
    keeper, session = Keeper(store), a_session()
    await keeper.save(session)
    await keeper.save_artifacts(session.id, [ARTIFACT])
    await keeper.save_traces(session.id, [READ, GREP])
    await keeper.save_runs(session.id, [RUN])
    await keeper.save_reports(session.id, [REPORT])

    assert await keeper.load(session.id) == session
    assert await keeper.load_artifacts(session.id) == {ARTIFACT.artifact_uri: ARTIFACT}
    assert await keeper.load_traces(session.id) == [READ, GREP]
    assert await keeper.load_runs(session.id) == [RUN]
    assert await keeper.load_reports(session.id) == [REPORT]


# ---- ids that would be paths


@pytest.mark.parametrize(
    "session",
    [
        pytest.param("../../../etc/passwd", id="tp14_path_traversal_prevention"),
        pytest.param(r"foo\bar\baz", id="tp22_backslash_sanitization"),
        pytest.param(r"foo/bar\baz..qux", id="tp23_mixed_separator_sanitization"),
    ],
)
async def test_tp14_tp22_tp23_an_id_is_no_path(
    backend: Backend, tmp_path: Path, session: str
) -> None:
    backend = Backend(backend.name, tmp_path / "as" / "deep" / "as" / "a" / "path" / "climbs")
    backend.folder.mkdir(parents=True)
    around = set(tmp_path.rglob("*"))
    async with backend.open() as store:
        await Keeper(store).save(a_session("harmless"))
    before = backend.files()

    async with backend.open() as store:
        await Keeper(store).save(a_session(session))
        loaded = await Keeper(store).load(session)
        listed = await Keeper(store).ids()

    assert loaded is not None
    assert loaded.id == session
    assert session in listed
    new = {path.relative_to(backend.folder) for path in backend.files() - before}
    if backend.name == "file":
        journals = [path.parts[:2] for path in new if path.suffix == ".journal"]
        assert journals == [("store", "sessions")], "one, and in its place"
        assert all(path.parts[0] == "store" for path in new)
    else:
        assert new == set()
    assert {p for p in tmp_path.rglob("*") if backend.folder not in p.parents} <= around


# ---- what is configured


async def test_tp15_with_policies(store: Store) -> None:
    config = SessionConfig(
        confirmation=Confirmation(timeout_seconds=30.0),
        permissions=Permissions(allow=("Bash(cargo:*)",)),
        lanes=Lanes(),
        security=Raw(b'{"taint": true}'),
    )
    keeper = Keeper(store)
    session = Session(replace(a_session().head, config=config), ())

    await keeper.save(session)

    loaded = await keeper.load(session.id)
    assert loaded is not None
    assert loaded.head.config == config
    assert loaded.head.config.lanes is not None


async def test_tp16_with_llm_config(backend: Backend) -> None:
    """Provider and model are kept; a key has no place, neither in the wish nor in the record."""
    overrides = Overrides(model="claude-3-5-sonnet-20241022", model_provider="anthropic")
    head = replace(a_session().head, overrides=overrides)
    async with backend.open() as store:
        await Keeper(store).save(Session(head, (Message("user", "Hello"),)))
        loaded = await Keeper(store).load(head.id)

        assert loaded is not None
        assert loaded.head.overrides == overrides
    assert not any(
        "key" in name for name in (*Head.__struct_fields__, *Overrides.__struct_fields__)
    )
    for wish in (b'{"model":"m","api_key":"sk-canary"}', b'{"apiKey":"sk-canary"}'):
        with pytest.raises(InvalidParams, match="unknown field"):
            decode_own(wish, OverridesPatch)
    assert not any(b"sk-canary" in path.read_bytes() for path in backend.files())


async def test_tp20_session_data_serialization() -> None:
    head = a_session().head

    assert msgspec.json.decode(msgspec.json.encode(head), type=Head) == head


async def test_tp21_tool_names_from_definitions(store: Store) -> None:
    """Definitions come back from whoever has the tools; the names stay, in their order."""
    definitions: list[dict[str, object]] = [
        {"name": "bash", "description": "Execute bash", "parameters": {}},
        {"name": "read", "description": "Read file", "parameters": {}},
    ]
    names = tuple(str(definition["name"]) for definition in definitions)
    head = replace(a_session().head, config=SessionConfig(tools=names))

    await Keeper(store).save(Session(head, ()))

    loaded = await Keeper(store).load(head.id)
    assert loaded is not None
    assert loaded.head.config.tools == ("bash", "read")


# ---- what is damaged


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"not valid json {{{", id="tp24_corrupted_json_recovery"),
        pytest.param(b"", id="tp30_load_empty_file"),
        pytest.param(b'{"id":"partial-session","message', id="tp31_load_partial_json"),
    ],
)
async def test_tp24_tp30_tp31_damage_is_an_error_and_no_absence(
    durable: Backend, content: bytes
) -> None:
    async with durable.open() as store:
        await store.commit([creation("test-id", 2), creation("other", 2)])
    durable.spoil("test-id", content)

    async with durable.open() as store:
        with pytest.raises(StoreUnreadable) as caught:
            await Keeper(store).load("test-id")
        assert caught.value.session == "test-id"
        assert await Keeper(store).ids() == ["other"]
        assert await store.tip("other") == 2, "one damaged session stops no other"
        with pytest.raises((StoreUnreadable, StoreConflict)):
            await store.commit([creation("test-id")])


# ---- health


async def test_tp27_health_check(backend: Backend) -> None:
    async with backend.open() as store:
        await store.health()

        assert store.name == backend.name


async def test_tp28_health_check_bad_dir(durable: Backend) -> None:
    missing = Backend(durable.name, durable.folder / "nonexistent" / "path")

    with pytest.RaisesGroup(
        pytest.RaisesExc(StoreBroken), flatten_subgroups=True, allow_unwrapped=True
    ):
        async with missing.open():
            pass


async def test_tp29_memory_store_health_check(store: Store) -> None:
    await store.health()

    assert store.name in ("memory", "file", "sqlite")


# ---- many at once


async def test_tp32_concurrent_save(store: Store) -> None:
    keeper, session = Keeper(store), a_session()
    await keeper.save(session)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            more = with_message(session, f"message {number}", 1700000200.0)
            nursery.start_soon(keeper.save, more)

    loaded = await keeper.load(session.id)
    assert loaded is not None
    assert len(loaded.messages) == 3, "each of them saw what was there and added no second one"


async def test_tp32_of_five_commits_from_one_version_one_is_taken(store: Store) -> None:
    await store.commit([creation("s1", 1)])
    outcomes: list[str] = []

    async def commit(number: int) -> None:
        change = Change("s1", (an_entry(2),), a_head("s1", title=f"{number}"))
        try:
            await store.commit([change])
            outcomes.append("ok")
        except StoreConflict:
            outcomes.append("conflict")

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(commit, number)

    assert sorted(outcomes) == ["conflict"] * 4 + ["ok"]

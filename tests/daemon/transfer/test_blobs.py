"""Artifacts go with their session into a file and out of it, byte for byte and by their digest."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from moorage_clients import a3s
from moorage_daemon.identity import Principal
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.model import Kind, UploadBody
from moorage_daemon.store.port import MAX_BLOB, BlobPart
from moorage_daemon.tools.port import Report
from moorage_daemon.transfer.arriving import MAX_LOST
from moorage_protocol.errors import InvalidParams, NotFound
from moorage_protocol.moorage import Role
from moorage_protocol.upkeep import StoreCheckResult
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.store.samples import in_chunks
from tests.daemon.test_artifacts import LONG, content, part, rows, told
from tests.daemon.transfer.files import changed, exported, file_of, imported, lines_of, parts_of
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)

HUGE = "".join(f"{number:09}" for number in range(200_000))


async def session_with(daemon: Daemon, client: Client, *texts: str) -> str:
    session = await client.new()
    for text in texts:
        await told(daemon, client, session, Report("both ends", whole=text))
    return session


async def test_artifacts_come_out_as_they_went_in(daemon: Daemon, client: Client) -> None:
    session = await session_with(daemon, client, LONG, HUGE, LONG)
    parts = [part async for part in parts_of(client, session)]
    file = b"".join(parts)

    async with open_daemon() as other:
        guest = await other.connect(Principal("guest", Role.OWNER))
        result = await imported(guest, file)

        found = await rows(guest, result.session_id)
        assert [await content(guest, row.uri) for row in found] == [
            text.encode() for text in (LONG, HUGE, LONG)
        ]
        assert all(row.uri.startswith(f"moorage-artifact://{result.session_id}/") for row in found)
        assert (result.blobs, result.notes) == (3, [])
        assert (await other.store.collect(0)).blobs == 0, "all of them are named"
    assert len(parts) > 4
    assert max(len(part) for part in parts) <= 2**19
    blobs = [line["blob"] for line in lines_of(file) if "blob" in line]
    assert len(blobs) > 8, "a long one is in several lines"


async def test_every_part_of_a_file_may_be_asked_for_again(daemon: Daemon, client: Client) -> None:
    """What is needed to go on stands in the cursor: an answer that was lost is no loss."""
    session = await session_with(daemon, client, HUGE)
    cursors: list[str | None] = [None]
    parts: list[bytes] = []
    while True:
        params = {"sessionId": session, "cursor": cursors[-1]}
        part: Json = await client.call("_moorage/session/export", params, dict[str, Any])
        parts.append(base64.b64decode(part["data"]))
        if "next" not in part:
            break
        cursors.append(part["next"])

    for number in reversed(range(1, len(cursors))):
        params = {"sessionId": session, "cursor": cursors[number]}
        again: Json = await client.call("_moorage/session/export", params, dict[str, Any])
        assert base64.b64decode(again["data"]) == parts[number]


def blob(number: int, **fields: Any) -> Any:
    """A change of the `number`-th line of a blob."""

    def change(lines: list[Json]) -> None:
        found = [line for line in lines if "blob" in line]
        found[number]["blob"].update(fields)

    return change


def without_blobs(lines: list[Json]) -> None:
    lines[:] = [line for line in lines if "blob" not in line]


def moved_first(lines: list[Json]) -> None:
    at = next(number for number, line in enumerate(lines) if "blob" in line)
    lines.insert(1, lines.pop(at))


BROKEN = {
    "absent": (without_blobs, "has to come first: an entry names it"),
    "too early": (moved_first, "does not name this blob"),
    "another digest": (blob(0, sha256="0" * 64), "does not name this blob"),
    "other bytes": (
        blob(0, data=base64.b64encode(b"x" * 2**18).decode()),
        "not those of its digest",
    ),
    "a gap": (blob(1, offset=5), "blob.offset must be"),
    "too long": (blob(0, size=MAX_BLOB + 1), "more than"),
    "longer than it is": (blob(1, data=base64.b64encode(b"x" * 2**19).decode()), "blob.offset"),
    "another size": (blob(0, size=5), "blob.size must be"),
    "no base64": (blob(0, data="???"), "not what a line says"),
    "no digest": (blob(0, sha256="abc"), "not what a line says"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_blob_that_is_not_what_it_says_ends_the_import(
    daemon: Daemon, client: Client, what: str
) -> None:
    change, problem = BROKEN[what]
    session = await session_with(daemon, client, LONG)
    file = changed(await exported(client, session), change)

    async with open_daemon() as other:
        guest = await other.connect()
        with pytest.raises(InvalidParams, match=problem):
            await imported(guest, file)
        await wait_all_tasks_blocked()
        assert await other.store.inner.list() == []


def missing(lines: list[Json]) -> None:
    """Say of the first blob that its bytes are lost."""
    first = next(line for line in lines if "blob" in line)
    digest, at = first["blob"]["sha256"], lines.index(first)
    without_blobs(lines)
    empty = {"sha256": digest, "size": 0, "offset": 0, "data": "", "missing": True}
    lines.insert(at, {"blob": empty})


async def test_a_digest_alone_gives_nobody_bytes(daemon: Daemon, client: Client) -> None:
    """Who knows the digest of what somebody else keeps has not got it, nor learns that it is kept,
    by no file."""
    session = await session_with(daemon, client, LONG)
    file = await exported(client, session)
    stranger = await daemon.connect(Principal("other", Role.OWNER))

    with pytest.raises(InvalidParams):
        await imported(stranger, changed(file, without_blobs))
    there = await imported(stranger, changed(file, missing))
    async with open_daemon() as other:
        guest = await other.connect(Principal("other", Role.OWNER))
        nowhere = await imported(guest, changed(file, missing))

    assert there.notes == nowhere.notes
    [row] = await rows(stranger, there.session_id)
    with pytest.raises(NotFound):
        await part(stranger, row.uri)


@pytest.mark.parametrize("kind", ["artifact", "of-tomorrow"])
async def test_what_was_missing_stays_missing_when_somebody_else_stores_those_bytes(
    daemon: Daemon, client: Client, kind: str
) -> None:
    def unknown(lines: list[Json]) -> None:
        missing(lines)
        [artifact] = [x["entry"] for x in lines if x.get("entry", {}).get("kind") == "artifact"]
        artifact["kind"] = kind

    async with open_daemon() as other:
        guest = await other.connect()
        session = await session_with(other, guest, LONG)
        file = changed(await exported(guest, session), unknown)
    stranger = await daemon.connect(Principal("other", Role.OWNER))
    copy = (await imported(stranger, file)).session_id
    await session_with(daemon, client, LONG)

    again = await imported(stranger, await exported(stranger, copy))

    for name in (copy, again.session_id):
        out = await exported(stranger, name)
        assert not any(x["blob"]["data"] for x in lines_of(out) if "blob" in x)
        for row in await rows(stranger, name):
            with pytest.raises(NotFound):
                await part(stranger, row.uri)
    assert len(again.notes) == 1


async def test_what_was_missing_is_there_again_once_its_bytes_come_for_that_session(
    daemon: Daemon, client: Client
) -> None:
    session = await session_with(daemon, client, LONG)
    file = await exported(client, session)
    copy = (await imported(client, changed(file, missing))).session_id

    await told(daemon, client, copy, Report("both ends", whole=LONG))

    first, second = await rows(client, copy)
    with pytest.raises(NotFound):
        await part(client, first.uri)
    assert await content(client, second.uri) == LONG.encode()
    whole = await imported(client, await exported(client, copy))
    assert whole.notes == []
    for row in await rows(client, whole.session_id):
        assert await content(client, row.uri) == LONG.encode()


async def test_what_is_longer_than_a_blob_may_be_is_not_exported_as_one(
    daemon: Daemon, client: Client
) -> None:
    """No store keeps it; one that was put there by other means would stop the import."""
    session = await session_with(daemon, client, LONG)
    get = daemon.store.get_blob

    async def too_long(*wish: Any, **_: Any) -> BlobPart | None:
        found = await get(*wish)
        return None if found is None else BlobPart(found.data, MAX_BLOB + 1)

    daemon.store.get_blob = too_long  # type: ignore[method-assign]
    file = await exported(client, session)

    [line] = [line["blob"] for line in lines_of(file) if "blob" in line]
    assert (line["missing"], line["data"], line["size"]) == (True, "", 0)
    assert "were lost before" in (await imported(client, file)).notes[0]


async def test_so_many_may_be_missing(daemon: Daemon, client: Client) -> None:
    session = await session_with(daemon, client, LONG)

    def many(lines: list[Json]) -> None:
        missing(lines)
        at = next(
            n for n, line in enumerate(lines) if line.get("entry", {}).get("kind") == "artifact"
        )
        entry = lines[at]["entry"]
        del lines[at:]
        for number in range(MAX_LOST + 1):
            digest = f"{number:064x}"
            body = entry["body"] | {"sha256": digest}
            lines.append({"entry": entry | {"seq": entry["seq"] + number, "body": body}})
            empty = {"sha256": digest, "size": 0, "offset": 0, "data": "", "missing": True}
            lines.append({"blob": empty})
        lines[0]["seq"] = entry["seq"] + MAX_LOST

    file = changed(await exported(client, session), many)
    with pytest.raises(InvalidParams, match=f"more than {MAX_LOST} blobs"):
        await imported(client, file)


async def test_saying_a_digest_gives_nobody_bytes(
    daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    """Neither in a prompt, nor in what is kept as it came out of a foreign file."""
    session = await session_with(daemon, client, LONG)
    [row] = await rows(client, session)
    stranger = await daemon.connect(Principal("other", Role.OWNER))
    document = {
        "id": "x",
        "config": {"workspace": "/tmp"},
        "state": "Active",
        "messages": [{"role": "user", "content": [{"type": "image", "sha256": row.sha256}]}],
    }
    artifact = {
        "artifact_id": "a",
        "artifact_uri": f"sha256/{row.sha256}",
        "tool_name": "t",
        "content": "of the stranger",
    }
    (tmp_path / "artifacts" / "x").mkdir(parents=True)
    (tmp_path / "x.json").write_bytes(msgspec.json.encode(document))
    manifest = msgspec.json.encode({"artifacts": [artifact]})
    (tmp_path / "artifacts" / "x" / "artifacts.json").write_bytes(manifest)

    foreign = (await imported(stranger, b"".join(a3s.lines(tmp_path, "x")))).session_id
    said = await stranger.new()
    reply = stranger.prompt(said, f"sha256/{row.sha256}")
    (await daemon.puppet.next()).finish()
    await reply.verdict()

    for name, bytes_given in ((foreign, [b"of the stranger"]), (said, [])):
        file = await exported(stranger, name)
        assert row.sha256.encode() in file
        blobs = [line["blob"]["data"] for line in lines_of(file) if "blob" in line]
        assert [base64.b64decode(data) for data in blobs] == bytes_given


@pytest.mark.parametrize("name", ["sh\\u0061256", "\\u0073ha256"])
async def test_a_digest_that_is_spelled_otherwise_gives_nobody_bytes(
    daemon: Daemon, client: Client, name: str
) -> None:
    session = await session_with(daemon, client, LONG)
    lines = lines_of(await exported(client, session))
    without_blobs(lines)
    artifact = next(
        line["entry"] for line in lines if line.get("entry", {}).get("kind") == "artifact"
    )
    body = msgspec.json.encode(artifact["body"]).replace(b"sha256", name.encode(), 1)
    artifact["body"] = msgspec.Raw(body)
    stranger = await daemon.connect(Principal("other", Role.OWNER))

    with pytest.raises(InvalidParams, match=r"entry\.body\.sha256 is no digest"):
        await imported(stranger, file_of(lines))


async def test_what_was_lost_before_is_noted_and_stops_nothing(
    daemon: Daemon, client: Client
) -> None:
    session = await session_with(daemon, client, LONG)
    get = daemon.store.get_blob

    async def lost(*_: Any, **__: Any) -> None:
        await get("0" * 64)

    daemon.store.get_blob = lost  # type: ignore[method-assign]
    file = await exported(client, session)

    async with open_daemon() as other:
        guest = await other.connect()
        result = await imported(guest, file)
        [row] = await rows(guest, result.session_id)
        assert result.notes == [f"the bytes of an artifact were lost before: {row.sha256}"]


async def test_a_check_tells_what_was_lost_before_the_import_and_what_since(
    daemon: Daemon, client: Client
) -> None:
    session = await session_with(daemon, client, LONG)
    file = changed(await exported(client, session), missing)

    async with open_daemon() as other:
        guest = await other.connect()
        copy = (await imported(guest, file)).session_id
        assert await checked(guest) == ([], 1)

        await told(other, guest, copy, Report("both ends", whole=LONG))
        assert await checked(guest) == ([], 0), "it is there by now"

        [first, *_] = await rows(guest, copy)
        lose(other, first.sha256)
        assert await checked(guest) == ([f"the blob {first.sha256} is missing"], 0)


async def test_a_check_tells_of_damage_where_another_session_names_what_one_came_without(
    daemon: Daemon, client: Client
) -> None:
    session = await session_with(daemon, client, LONG)
    [row] = await rows(client, session)
    file = changed(await exported(client, session), missing)
    await imported(client, file)
    assert await checked(client) == ([], 0)

    lose(daemon, row.sha256)

    assert await checked(client) == ([f"the blob {row.sha256} is missing"], 0)


async def checked(client: Client) -> tuple[list[str], int]:
    """The problems that a check finds, and how many blobs it calls lost."""
    found = await client.call("_moorage/store/check", {}, StoreCheckResult)
    return [problem.problem for problem in found.problems], found.lost


def lose(daemon: Daemon, digest: str) -> None:
    """Take a blob from the daemon's memory."""
    memory = daemon.store.inner
    assert isinstance(memory, MemoryStore)
    del memory.blobs[digest]


# ---- uploads


async def test_an_upload_is_listed_read_kept_and_taken_along(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    blob = await daemon.store.put_blob(in_chunks(b"a picture"), max_bytes=100)
    body = UploadBody(
        sha256=blob.sha256,
        size=9,
        name="cat.png",
        media="image/png",
        marker="[IMAGE:cat.png]",
        workspace_path="uploads/cat.png",
    )
    log = daemon.session(session).log
    await log.until(log.append(Kind.UPLOAD, body))

    copy = await imported(client, await exported(client, session))

    for name in (session, copy.session_id):
        [row] = await rows(client, name)
        assert (row.kind, row.name, row.marker, row.workspace_path, row.media) == (
            "upload",
            "cat.png",
            "[IMAGE:cat.png]",
            "uploads/cat.png",
            "image/png",
        )
        assert await content(client, row.uri) == b"a picture"
    assert (await daemon.store.collect(-1)).blobs == 0
    assert copy.blobs == 1


BAD_BYTES: list[tuple[str, Json]] = [
    ("upload", {"workspacePath": "../../etc/passwd"}),
    ("upload", {"workspacePath": "/etc/passwd"}),
    ("upload", {"workspacePath": "a/../../b"}),
    ("upload", {"workspacePath": "a//b"}),
    ("upload", {"workspacePath": "a\0b"}),
    ("upload", {"workspacePath": ""}),
    ("upload", {"workspacePath": "x" * 5000}),
    ("upload", {"size": -1}),
    ("upload", {"size": 10**30}),
    ("upload", {"marker": "x" * 10_000}),
    ("artifact", {"tool": "t", "size": -1}),
    ("artifact", {"tool": "t", "size": MAX_BLOB + 1}),
    ("artifact", {"tool": "t", "shown": -1}),
    ("artifact", {"tool": "t", "name": "x" * 2000}),
    ("artifact", {"tool": 5}),
]


@pytest.mark.parametrize(("kind", "fields"), BAD_BYTES)
async def test_bytes_that_no_session_could_have_are_refused(
    daemon: Daemon, client: Client, kind: str, fields: Json
) -> None:
    session = await client.new()

    def put(lines: list[Json]) -> None:
        body = {"sha256": "0" * 64, "size": 5, "name": "n", **fields}
        lines[0]["seq"] += 1
        entry = {"seq": lines[0]["seq"], "at": 1.0, "kind": kind, "body": body}
        empty = {"sha256": "0" * 64, "size": 0, "offset": 0, "data": "", "missing": True}
        lines[-1:] = [{"entry": entry}, {"blob": empty}]

    with pytest.raises(InvalidParams, match=r"entry\.body"):
        await imported(client, changed(await exported(client, session), put))

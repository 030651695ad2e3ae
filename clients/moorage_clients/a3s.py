"""A session of the a3s layout, as the lines that a daemon imports: a part a line.

The layout is one JSON document a session, and beside it artifacts, traces, runs and verification
reports in files of the same name. What stands in the parts is the daemon's affair.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast


PIECE = 2**18  # bytes of an artifact in one line
MAX_FILE = 2**28  # bytes; what is longer was not written by a session

Json = dict[str, Any]


class NoSession(Exception):
    """A file of the layout is missing or is not what it has to be; one line says which."""


def lines(folder: Path, session: str) -> Iterator[bytes]:
    """All lines of a session; raises `NoSession`, `OSError`."""
    count = 0
    for part in _parts(folder, session.replace("/", "_").replace("\\", "_").replace("..", "_")):
        count += 1
        yield _line(part)
    yield _line({"end": {"lines": count}})


def _line(part: Json) -> bytes:
    return json.dumps(part, separators=(",", ":")).encode() + b"\n"


def _parts(folder: Path, name: str) -> Iterator[Json]:
    document = _object(folder / f"{name}.json")
    messages = _list(document.pop("messages", []), "messages")
    costs = _list(document.pop("cost_records", []), "cost_records")
    config = document.get("llm_config")
    if isinstance(config, dict):
        cast("Json", config).pop("api_key", None)  # a key goes nowhere
    yield {"a3s": "session", "document": document}
    for kind, found in (
        ("message", messages),
        ("cost", costs),
        ("trace", _beside(folder / "traces" / f"{name}.json")),
        ("run", _beside(folder / "runs" / f"{name}.json")),
        ("report", _beside(folder / "verification" / f"{name}.json")),
    ):
        for part in found:
            yield {kind: part}
    manifest = folder / "artifacts" / name / "artifacts.json"
    if manifest.exists():
        for artifact in _list(_object(manifest).get("artifacts", []), "artifacts"):
            yield from _artifact(artifact)


def _artifact(artifact: Json) -> Iterator[Json]:
    content = str(artifact.pop("content", "")).encode()
    digest = hashlib.sha256(content).hexdigest()
    yield {"artifact": {**artifact, "sha256": digest, "size": len(content)}}
    for start in range(0, max(len(content), 1), PIECE):
        data = base64.b64encode(content[start : start + PIECE]).decode()
        piece = {"sha256": digest, "size": len(content), "offset": start, "data": data}
        yield {"blob": piece}


def _read(path: Path) -> Any:
    if path.stat().st_size > MAX_FILE:
        raise NoSession(f"{path} has more than {MAX_FILE >> 20} MiB")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise NoSession(f"{path} is not JSON: {error}") from error


def _object(path: Path) -> Json:
    found = _read(path)
    if not isinstance(found, dict):
        raise NoSession(f"{path} holds no object")
    return cast("Json", found)


def _beside(path: Path) -> list[Json]:
    return _list(_read(path), str(path)) if path.exists() else []


def _list(found: Any, where: str) -> list[Json]:
    if not isinstance(found, list):
        raise NoSession(f"{where} is no list")
    return cast("list[Json]", found)

"""A session of the a3s layout, as the lines that a daemon imports: a part a line.

The layout is one JSON document a session, and beside it artifacts, traces, runs and verification
reports in files of the same name. What stands in the parts is the daemon's affair. The layout may
be somebody else's: no link in it is followed, and nothing but files is read.
"""

import base64
import hashlib
import json
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast


PIECE = 2**18  # bytes of an artifact in one line
MAX_ARTIFACT = 32 * 2**20  # bytes: what a daemon keeps at most
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
    try:
        return json.dumps(part, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except (ValueError, RecursionError) as error:
        raise NoSession(f"a part of it is more than JSON can say: {error}") from error


def _parts(folder: Path, name: str) -> Iterator[Json]:
    if not folder.is_dir():
        raise NoSession(f"{folder} is no directory")
    document = _read(folder, f"{name}.json")
    if document is None:
        raise NoSession(f"{folder} has no session of that id")
    if not isinstance(document, dict):
        raise NoSession(f"{name}.json holds no object")
    document = cast("Json", document)
    messages = _list(document.pop("messages", []), "messages")
    costs = _list(document.pop("cost_records", []), "cost_records")
    config = document.get("llm_config")
    if isinstance(config, dict):
        cast("Json", config).pop("api_key", None)  # a key goes nowhere
    yield {"a3s": "session", "document": document}
    for kind, found in (
        ("message", messages),
        ("cost", costs),
        ("trace", _beside(folder, "traces", f"{name}.json")),
        ("run", _beside(folder, "runs", f"{name}.json")),
        ("report", _beside(folder, "verification", f"{name}.json")),
    ):
        for part in found:
            yield {kind: part}
    manifest = _read(folder, "artifacts", name, "artifacts.json")
    if manifest is not None and not isinstance(manifest, dict):
        raise NoSession(f"artifacts/{name}/artifacts.json holds no object")
    if manifest is not None:
        for artifact in _list(cast("Json", manifest).get("artifacts", []), "artifacts"):
            yield from _artifact(artifact)


def _artifact(artifact: Any) -> Iterator[Json]:
    if not isinstance(artifact, dict):
        raise NoSession("an artifact is no object")
    found = cast("Json", artifact)
    content = _content(found.pop("content", ""))
    digest = hashlib.sha256(content).hexdigest()
    yield {"artifact": {**found, "sha256": digest, "size": len(content)}}
    for start in range(0, max(len(content), 1), PIECE):
        data = base64.b64encode(content[start : start + PIECE]).decode()
        piece = {"sha256": digest, "size": len(content), "offset": start, "data": data}
        yield {"blob": piece}


def _content(text: Any) -> bytes:
    try:
        content = cast("str", text).encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise NoSession("the content of an artifact is no text") from error
    if len(content) > MAX_ARTIFACT:
        raise NoSession(
            f"an artifact has more than {MAX_ARTIFACT >> 20} MiB, which no daemon keeps"
        )
    return content


def _read(folder: Path, *names: str) -> Any:
    """What stands in a file of the layout, None if it is not there; no link is followed in it."""
    path = folder.joinpath(*names)
    try:
        with _opened(folder, names) as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = (
            "is a link"
            if path.is_symlink() or path.parent.is_symlink()
            else f"cannot be read: {error.strerror}"
        )
        raise NoSession(f"{path} {why}") from error
    except ValueError as error:
        raise NoSession(f"there is no such id: {error}") from error
    if len(data) > MAX_FILE:
        raise NoSession(f"{path} has more than {MAX_FILE >> 20} MiB")
    try:
        return json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise NoSession(f"{path} is not JSON: {error}") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


@contextmanager
def _opened(folder: Path, names: Sequence[str]) -> Generator[BinaryIO, None, None]:
    """A file below the folder, opened name by name; raises `NoSession` for what is no file."""
    with ExitStack() as stack:
        above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, above)
        for name in names[:-1]:
            above = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=above)
            stack.callback(os.close, above)
        how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # who opens a pipe waits for a writer
        found = os.open(names[-1], how, dir_fd=above)
        with os.fdopen(found, "rb") if _is_file(found) else _refused(found, names) as file:
            yield file


def _is_file(handle: int) -> bool:
    return stat.S_ISREG(os.fstat(handle).st_mode)


def _refused(handle: int, names: Sequence[str]) -> NoReturn:
    os.close(handle)
    raise NoSession(f"{'/'.join(names)} is no file")


def _beside(folder: Path, *names: str) -> list[Json]:
    found = _read(folder, *names)
    return [] if found is None else _list(found, "/".join(names))


def _list(found: Any, where: str) -> list[Json]:
    if not isinstance(found, list):
        raise NoSession(f"{where} is no list")
    return cast("list[Json]", found)

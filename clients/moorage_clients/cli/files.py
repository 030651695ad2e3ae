"""Commands that write a session to a file and make one of a file: export, import."""

import os
import shlex
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import BinaryIO

import trio

from moorage_clients import a3s, records
from moorage_clients.cli.choosing import choose
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Export, Import, Invocation
from moorage_clients.cli.opening import run_with_client
from moorage_clients.cli.screen import Screen
from moorage_clients.client import Client
from moorage_clients.plain_text import plain


CHUNK = 2**18  # bytes read at once


def export(invocation: Invocation, command: Export, screen: Screen) -> Exit:
    """Write a session to a file or to stdout."""
    if command.file is None and sys.stdout.isatty():
        problem = "That would fill the terminal with a file."
        raise Failure(Exit.USAGE, problem, "Say where to: moorage export … > FILE, or -o FILE")

    async def work(client: Client) -> Exit:
        session = await choose(client, command.session, killed=True)
        size = 0
        with _output(command.file) as file:
            async with aclosing(records.exported(client, session)) as parts:
                async for part in parts:
                    size += len(part)
                    await trio.to_thread.run_sync(file.write, part)
        if command.file is not None and invocation.json:
            screen.document({"sessionId": session, "file": command.file, "bytes": size})
        elif command.file is not None:
            screen.note(f"{session}: {size:,} bytes in {command.file}")
        return Exit.OK

    return run_with_client(invocation, work)


@contextmanager
def _output(name: str | None) -> Generator[BinaryIO, None, None]:
    """Where a file goes: one that was there stays as it is, half a one does not stay at all."""
    if name is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        raise Failure(Exit.FAILED, f"{name} is there already.", "Remove it, or name another file.")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if os.path.lexists(part):
            raise  # what is wrong is about the part, and a person has to look at that
        raise OSError(error.errno, error.strerror, name) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # which fails where one has come in the meantime
    finally:
        part.unlink()


def import_(invocation: Invocation, command: Import, screen: Screen) -> Exit:
    """Make a session of a file and print its id."""

    async def work(client: Client) -> Exit:
        with _input(command) as file:
            async with aclosing(_chunks(file)) as chunks:
                found = await records.imported(
                    client, chunks, keep_id=command.keep_id, keep_allowed=command.keep_allowed
                )
        if invocation.json:
            screen.document(found)
        else:
            for note in found.notes:
                screen.note(plain(note))
            screen.say(found.session_id + "\n")
        return Exit.OK

    return run_with_client(invocation, work)


@contextmanager
def _input(command: Import) -> Generator[BinaryIO, None, None]:
    name = command.file
    if command.a3s is not None:
        yield _other_layout(Path(name), command.a3s)
        return
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - it is closed below
    except IsADirectoryError as error:
        hint = f"For a session of the a3s layout in it: moorage import {shlex.quote(name)} --a3s ID"
        raise Failure(Exit.FAILED, f"{name} is a directory.", hint) from error
    with file:
        yield file


def _other_layout(folder: Path, session: str) -> BinaryIO:
    """The lines of a session that somebody else's program wrote; raises `Failure`."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the one who sends it closes it
    try:
        for line in a3s.lines(folder, session):
            file.write(line)
    except a3s.NoSession as problem:
        file.close()
        raise Failure(Exit.FAILED, plain(str(problem))) from problem
    file.seek(0)
    return file


async def _chunks(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    while chunk := await trio.to_thread.run_sync(file.read, CHUNK):
        yield chunk

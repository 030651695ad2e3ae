"""Read: the text of a file beneath the workspace, as the user's editor has it if there is one."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from moorage_daemon.grants.calls import Call, file_at
from moorage_daemon.tools.client import ClientFailed
from moorage_daemon.tools.port import Bench, Report, ToolFailed
from moorage_daemon.tools.workspace import LIMIT, Text, Workspace, WorkspaceError
from moorage_protocol.acp import ToolCallContent, ToolCallLocation, ToolKind


async def read_text(path: str, bench: Bench) -> Text:
    """The text of a file: the editor's, where it lends it, or else the disk's.

    Raises WorkspaceError, for what lies outside before anybody is asked for it.
    """
    workspace, client = Workspace(Path(bench.cwd)), bench.client
    if client is not None and client.reads_files:
        place = await workspace.place(path)
        if place is not None:
            try:
                text = await client.read_text(place)
            except ClientFailed:
                pass  # the disk has it as well, or says what is wrong
            else:
                return Text(text[:LIMIT], len(text.encode()), len(text) > LIMIT)
    return await workspace.read_text(path)


class ReadArguments(msgspec.Struct, frozen=True):
    """`path` is relative to the workspace, or absolute and inside it."""

    path: str


class Read:
    """Reads files, and nothing that is not a file of the workspace."""

    name = "Read"
    kind = ToolKind.READ
    asks = False

    def title(self, arguments: ReadArguments) -> str:
        """What is read."""
        return f"Read {arguments.path}"

    def locations(self, arguments: ReadArguments, cwd: str) -> list[ToolCallLocation]:
        """The file, as an absolute path."""
        return [ToolCallLocation(path=str(Path(cwd) / arguments.path))]

    def about(self, arguments: ReadArguments, cwd: str) -> Call:
        """The file."""
        return Call(self.name, file_at(cwd, arguments.path))

    async def preview(self, arguments: ReadArguments, bench: Bench) -> Sequence[ToolCallContent]:
        """Nothing is decided about it."""
        return ()

    async def run(self, arguments: ReadArguments, bench: Bench) -> Report:
        """Read it; what is too long is cut and says so."""
        try:
            found = await read_text(arguments.path, bench)
        except WorkspaceError as error:
            raise ToolFailed(str(error)) from error
        if found.truncated:
            return Report(f"{found.text}\n[cut: the file has {found.size} bytes]")
        return Report(found.text)

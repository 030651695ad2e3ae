"""Read: the text of a file beneath the workspace."""

from pathlib import Path

import msgspec

from moorage_daemon.tools.port import Bench, Report, ToolFailed
from moorage_daemon.tools.workspace import Workspace, WorkspaceError
from moorage_protocol.acp import ToolCallLocation, ToolKind


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

    async def run(self, arguments: ReadArguments, bench: Bench) -> Report:
        """Read it; what is too long is cut and says so."""
        try:
            found = await Workspace(Path(bench.cwd)).read_text(arguments.path)
        except WorkspaceError as error:
            raise ToolFailed(str(error)) from error
        if found.truncated:
            return Report(f"{found.text}\n[cut: the file has {found.size} bytes]")
        return Report(found.text)

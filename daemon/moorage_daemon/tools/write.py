"""Write: the whole text of a file beneath the workspace; its difference is shown before."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from moorage_daemon.grants.calls import Call, file_at
from moorage_daemon.tools.client import ClientGone, ClientRefused, ClientSilent, ClientUnclear
from moorage_daemon.tools.port import Bench, NotBegun, Report, ToolFailed
from moorage_daemon.tools.read import read_text
from moorage_daemon.tools.workspace import FileMissing, Workspace, WorkspaceError
from moorage_protocol.acp import Diff, ToolCallContent, ToolCallLocation, ToolKind


MAX_SHOWN = 64 * 2**10  # characters of old text in a difference: with the new one it fits a message


class WriteArguments(msgspec.Struct, frozen=True):
    """`path` is relative to the workspace, or absolute and inside it; `text` is all of the file."""

    path: str
    text: str


class Write:
    """Makes files and replaces them, in the editor of the user where that lends it."""

    name = "Write"
    kind = ToolKind.EDIT
    asks = True

    def title(self, arguments: WriteArguments) -> str:
        """What is written; the difference says the rest."""
        return f"Write {arguments.path}"

    def locations(self, arguments: WriteArguments, cwd: str) -> list[ToolCallLocation]:
        """The file, as an absolute path."""
        return [ToolCallLocation(path=str(Path(cwd) / arguments.path))]

    def about(self, arguments: WriteArguments, cwd: str) -> Call:
        """The file."""
        return Call(self.name, file_at(cwd, arguments.path))

    async def preview(self, arguments: WriteArguments, bench: Bench) -> Sequence[ToolCallContent]:
        """What will be different; nothing where the old text is long or is none."""
        try:
            await Workspace(Path(bench.cwd)).place(arguments.path)
            old = await _old_text(arguments.path, bench)
        except WorkspaceError as error:
            raise ToolFailed(str(error)) from error
        if old is not None and (len(old) > MAX_SHOWN or "\ufffd" in old):
            return ()
        place = str(Path(bench.cwd) / arguments.path)
        return (Diff(path=place, old_text=old, new_text=arguments.text),)

    async def run(self, arguments: WriteArguments, bench: Bench) -> Report:
        """Write it, whole or not at all."""
        try:
            if not await _by_client(arguments, bench):
                workspace = Workspace(Path(bench.cwd))
                await workspace.write_text(arguments.path, arguments.text)
        except WorkspaceError as error:
            raise ToolFailed(str(error)) from error
        return Report(f"Wrote {arguments.path}: {len(arguments.text)} characters.", is_shown=True)


async def _old_text(path: str, bench: Bench) -> str | None:
    try:
        return (await read_text(path, bench)).text
    except FileMissing:
        return None


async def _by_client(arguments: WriteArguments, bench: Bench) -> bool:
    """Have the client write it; False where it does not do that and the disk is as good, and for
    a secret, which is not for a client."""
    client = bench.client
    if client is None or not client.writes_files or bench.is_secret:
        return False
    place = await Workspace(Path(bench.cwd)).place(arguments.path)
    if place is None:
        return False
    try:
        await client.write_text(place, arguments.text)
    except ClientGone:
        return False  # written twice it is the same
    except ClientRefused as refusal:
        if refusal.is_unserved:
            return False
        raise NotBegun(f"The editor did not write {arguments.path!r}.") from refusal
    except (ClientSilent, ClientUnclear) as silence:
        raise ToolFailed(
            f"The editor gave no answer: whether {arguments.path!r} was written is not known."
        ) from silence
    return True

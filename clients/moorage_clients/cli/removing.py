"""The command that removes sessions, those that cannot be read too."""

import sys

from moorage_clients.cli.choosing import matching
from moorage_clients.cli.colour import Style
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Delete, Invocation
from moorage_clients.cli.keyboard import Keyboard
from moorage_clients.cli.opening import run_with_client
from moorage_clients.cli.questions import Word, word
from moorage_clients.cli.screen import Screen
from moorage_clients.client import Client
from moorage_clients.plain_text import counted, one_line
from moorage_protocol.acp import ArchiveFilter
from moorage_protocol.moorage import SessionInfo


def delete(invocation: Invocation, command: Delete, screen: Screen) -> Exit:
    """Remove sessions; none is removed if one of them is unknown."""
    if not (command.is_sure or sys.stdin.isatty()):
        raise Failure(Exit.USAGE, "Nobody is here to be asked, and it cannot be undone.",
                      "Say --yes if you are sure.")  # fmt: skip

    async def work(client: Client) -> Exit:
        known = await _removable(client)
        given = (matching(start, known, killed=True) for start in command.sessions)
        chosen = list(dict.fromkeys(given))
        titles = {session.session_id: session.title or "" for session in known}
        if not (command.is_sure or await _is_wanted(chosen, titles, screen)):
            screen.note("Nothing was removed.")
            return Exit.FAILED
        for session in chosen:
            await client.delete(session)
            if not invocation.json:
                screen.say(f"{session}: removed\n")
        if invocation.json:
            screen.document({"removed": chosen})
        return Exit.OK

    return run_with_client(invocation, work)


async def _removable(client: Client) -> list[SessionInfo]:
    """What can be named: the sessions, and those that cannot be read."""
    damaged = (await client.live()).damaged
    unread = [SessionInfo(row.session_id, cwd="", title="damaged") for row in damaged]
    return [*await client.sessions(archived=ArchiveFilter.INCLUDE), *unread]


async def _is_wanted(chosen: list[str], titles: dict[str, str], screen: Screen) -> bool:
    """Ask a person; only a plain yes is one."""
    keyboard = Keyboard(sys.stdin.fileno())
    keyboard.forget()
    for session in chosen:
        screen.note(f"  {session}  {one_line(titles[session], 60)}".rstrip(), Style.PLAIN)
    many = counted(len(chosen), "session")
    screen.note(f"Remove {many} with all that is stored? y / n", Style.ASKING)
    return word(await keyboard.line() or "") is Word.YES

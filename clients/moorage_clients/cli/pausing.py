"""The commands that hold a session and let it go on."""

from moorage_clients.cli.choosing import choose
from moorage_clients.cli.exits import Exit
from moorage_clients.cli.invocation import Invocation, Pause, Resume
from moorage_clients.cli.opening import run_with_client
from moorage_clients.cli.screen import Screen
from moorage_clients.client import Client


def pause_or_resume(invocation: Invocation, command: Pause | Resume, screen: Screen) -> Exit:
    """Pause a session, or resume it, and say how it is then; twice is as good as once."""

    async def work(client: Client) -> Exit:
        session = await choose(client, command.session)
        match command:
            case Pause():
                state = await client.pause(session)
            case Resume():
                state = await client.unpause(session)
        if invocation.json:
            screen.document({"sessionId": session, "state": state})
        else:
            screen.say(f"{session}: {state}\n")
        return Exit.OK

    return run_with_client(invocation, work)

"""Commands about what the daemon stores: health, check, gc."""

from moorage_clients.cli.colour import Style
from moorage_clients.cli.exits import Exit
from moorage_clients.cli.invocation import Invocation
from moorage_clients.cli.opening import run_with_client
from moorage_clients.cli.screen import Screen
from moorage_clients.client import Client
from moorage_clients.plain_text import one_line
from moorage_protocol.upkeep import StoreCheckResult, StoreGcResult, StoreHealthResult


MIB = 2**20


def health(invocation: Invocation, screen: Screen) -> Exit:
    """Have every step of durable writing tried."""

    async def work(client: Client) -> Exit:
        found = await client.store_health()
        if invocation.json:
            screen.document(found)
        else:
            _say_health(found, screen)
        return Exit.OK if found.healthy and not found.low else Exit.FAILED

    return run_with_client(invocation, work)


def _say_health(found: StoreHealthResult, screen: Screen) -> None:
    good = found.healthy
    text = "can be written" if good else "CANNOT BE WRITTEN"
    screen.say(f"{found.name}: {screen.words.paint(text, Style.GOOD if good else Style.BAD)}\n")
    if found.free_bytes is not None:
        floor = f"nothing new begins below {found.floor_bytes // MIB} MiB"
        screen.say(f"{found.free_bytes // MIB} MiB are free; {floor}\n")
    if found.low:
        screen.say("there is too little space for a new session or turn\n")
    if found.damaged:
        screen.say(f"{found.damaged} sessions cannot be read: moorage store check names them\n")


def check(invocation: Invocation, screen: Screen) -> Exit:
    """Have everything looked at, byte for byte."""

    async def work(client: Client) -> Exit:
        found = await client.check_store()
        if invocation.json:
            screen.document(found)
        else:
            _say_check(found, screen)
        return Exit.FAILED if found.problems else Exit.OK

    return run_with_client(invocation, work)


def _say_check(found: StoreCheckResult, screen: Screen) -> None:
    for problem in found.problems:
        about = f"{problem.session_id}: " if isinstance(problem.session_id, str) else ""
        screen.say(one_line(f"{about}{problem.problem}", 400) + "\n")
    if found.more:
        screen.say(f"and {found.more} more: the daemon's log has all of them\n")
    for note in found.notes:
        screen.say(one_line(f"note: {note}", 400) + "\n")
    if found.lost:
        screen.say(f"{found.lost} blobs were lost before their sessions were imported\n")
    counts = f"{found.sessions} sessions, {found.entries} entries, {found.blobs} blobs"
    verdict = f"{len(found.problems) + found.more} problems" if found.problems else "all whole"
    screen.say(f"{found.name}: {counts}: {verdict}\n")


def gc(invocation: Invocation, screen: Screen) -> Exit:
    """Have removed what is kept too long, and what nobody needs."""

    async def work(client: Client) -> Exit:
        found = await client.clean_store()
        if invocation.json:
            screen.document(found)
        else:
            screen.say(_cleaned(found) + "\n")
        return Exit.OK

    return run_with_client(invocation, work)


def _cleaned(found: StoreGcResult) -> str:
    kib = (found.blob_bytes + found.freed_bytes) // 1024
    return (
        f"removed {found.expired_sessions} sessions, {found.trimmed_entries} entries, "
        f"{found.blobs} blobs; {kib} KiB are free again"
    )

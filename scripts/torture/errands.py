"""What succeeds only if several things are said in their order, each of them right.

Any messages in any order come to an import that is finished once in a million.
"""

import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


Json = dict[str, Any]
Ask = Callable[[str, Json], Awaitable[Json]]  # gives the result; raises what ends an errand
Errand = Callable[[Ask, Path], Awaitable[None]]

LONG = "long"  # a file whose text is more than the log takes
LONG_SIZE = 200_000  # characters


async def _session(ask: Ask, folder: Path) -> Json:
    new = await ask("session/new", {"cwd": str(folder), "mcpServers": []})
    return {"sessionId": new["sessionId"]}


async def _prompt(ask: Ask, session: Json, text: str) -> None:
    await ask("session/prompt", {**session, "prompt": [{"type": "text", "text": text}]})


async def fetch_an_artifact(ask: Ask, folder: Path) -> None:
    """Read a file that is too long, and the whole of it where it was kept."""
    (folder / LONG).write_text("x" * LONG_SIZE)
    session = await _session(ask, folder)
    await _prompt(ask, session, f"/read {LONG}")
    for row in (await ask("_moorage/session/artifacts", session))["artifacts"]:
        await ask("_moorage/artifact/get", {"uri": row["uri"], "offset": 9, "limit": 9})


async def take_out_and_bring_in(ask: Ask, folder: Path) -> None:
    """Export a session, delete it, and import it."""
    session = await _session(ask, folder)
    await _prompt(ask, session, "hello")
    file, params = b"", dict[str, Any](session)
    while True:
        part = await ask("_moorage/session/export", params)
        file += base64.b64decode(part["data"])
        if part.get("next") is None:
            break
        params = {**session, "cursor": part["next"]}
    await ask("session/delete", session)
    begun = await ask("_moorage/import/begin", {"keepId": True})
    again: Json = {"importId": begun["importId"]}
    data = base64.b64encode(file).decode()
    await ask("_moorage/import/part", {**again, "offset": 0, "data": data})
    await ask("_moorage/import/finish", again)


async def use_a_grant(ask: Ask, folder: Path) -> None:
    """Make one, use it in both ways, raise it, look at it, and end it."""
    wish = {"agent": "errand", "tools": ["Read"], "budget": {"calls": 5}}
    grant: Json = {"grantId": (await ask("_moorage/grant/create", wish))["grantId"]}
    await ask("_moorage/grant/use", {**grant, "agent": "errand", "tool": "Read"})
    await ask("_moorage/grant/useBatch", {**grant, "agent": "errand", "tools": ["Read", "Read(x)"]})
    await ask("_moorage/grant/raise", {**grant, "budget": {"calls": 9}})
    await ask("_moorage/grant/get", grant)
    await ask("_moorage/grant/close", grant)


async def pause_and_go_on(ask: Ask, folder: Path) -> None:
    """Have a session stand still, and not."""
    session = await _session(ask, folder)
    await ask("_moorage/session/pause", session)
    await ask("_moorage/session/resume", session)


ERRANDS: tuple[Errand, ...] = (
    fetch_an_artifact,
    take_out_and_bring_in,
    use_a_grant,
    pause_and_go_on,
)

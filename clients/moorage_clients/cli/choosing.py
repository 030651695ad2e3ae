"""Which session a command is about: an id, the start of one, or the last one of a directory."""

import os
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.client import Client
from moorage_clients.plain_text import one_line
from moorage_protocol.moorage import LiveRow, SessionInfo


SHORTEST = 4  # characters of an id that are shown at least
MAX_CANDIDATES = 10  # shown where a start fits several


def is_killed(session: SessionInfo) -> bool:
    """Whether a session was killed: it is only there to be read."""
    row = live_row(session)
    return row is not None and row.killed


def live_row(session: SessionInfo) -> LiveRow | None:
    """What the daemon adds to a listed session."""
    meta = session.meta
    if isinstance(meta, msgspec.UnsetType) or isinstance(meta.moorage, msgspec.UnsetType):
        return None
    return meta.moorage


def here() -> str:
    """The directory we are in, as it is, links and all; raises `Failure`."""
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        problem = "The directory you are in is not there any more."
        raise Failure(Exit.FAILED, problem, "Go to one that is, or name a session.") from None


async def choose(client: Client, given: str | None, *, killed: bool = False) -> str:
    """The id of the session that `given` names, else of the last one of this directory.

    `killed` sessions count where the command can do something with them. Raises `Failure`.
    """
    if given is None:
        cwd = here()
        return last_of(await client.sessions(cwd), cwd)
    return matching(given, await client.sessions(), killed=killed)


def last_of(sessions: Sequence[SessionInfo], cwd: str) -> str:
    """The last used of the sessions of `cwd`; they come newest first."""
    for session in sessions:
        if session.cwd == cwd and not is_killed(session):
            return session.session_id
    raise Failure(Exit.NO_SESSION, f"There is no session in {cwd}.", "Start one with: moorage new")


def matching(given: str, sessions: Sequence[SessionInfo], *, killed: bool) -> str:
    """The one id that is `given` or begins with it."""
    found = [session for session in sessions if session.session_id.startswith(given)]
    if killed is False and any(not is_killed(session) for session in found):
        found = [session for session in found if not is_killed(session)]
    exact = [session for session in found if session.session_id == given]
    found = exact or found
    if not given or not found:
        raise Failure(Exit.NO_SESSION, f"No session's id begins with {given!r}.",
                      "See them with: moorage ls --all")  # fmt: skip
    if len(found) > 1:
        raise Failure(Exit.NO_SESSION, f"Several sessions' ids begin with {given!r}:",
                      "\n".join(_candidates(found)))  # fmt: skip
    if is_killed(found[0]) and not killed:
        raise Failure(Exit.KILLED, f"Session {found[0].session_id} was killed.",
                      f"Its log can be read with: moorage log {given}")  # fmt: skip
    return found[0].session_id


def _candidates(found: Sequence[SessionInfo]) -> list[str]:
    lines = [
        f"  {session.session_id}  {one_line(session.title or '', 40)}  {one_line(session.cwd, 60)}"
        for session in found[:MAX_CANDIDATES]
    ]
    more = len(found) - MAX_CANDIDATES
    return [*lines, f"  and {more} more"] if more > 0 else lines


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """For each id the shortest start, of at least `SHORTEST` characters, that only it has."""
    ordered = sorted(ids)
    shared = [0, *(_shared(a, b) for a, b in pairwise(ordered)), 0]
    return {
        found: found[: max(SHORTEST, before + 1, after + 1)]
        for found, (before, after) in zip(ordered, pairwise(shared), strict=False)
    }


def _shared(a: str, b: str) -> int:
    for place, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return place
    return min(len(a), len(b))

"""What the creator of a session lends to its tools: three variables, checked and kept."""

from collections.abc import Mapping
from typing import Any

import pytest

from moorage_daemon.tools.port import Bench, Report
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import MAX_VARIABLE
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever, LeverArguments
from tests.daemon.twin import Client


pytestmark = pytest.mark.trio(run=simulated)

LENT = {"PATH": "/mine/bin:/bin", "SSH_AUTH_SOCK": "/run/me/agent", "VIRTUAL_ENV": "/mine"}


class Borrower(Lever):
    """A tool that remembers what it was lent."""

    lent: Mapping[str, str] | None = None

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        self.lent = bench.lent
        return await super().run(arguments, bench)


async def lent_in(daemon: Daemon, client: Client, session: str) -> Mapping[str, str] | None:
    """What a tool is lent that the session's next turn calls."""
    borrower = Borrower()
    client.prompt(session)
    performance = await daemon.puppet.next()
    await performance.do(borrower.call())
    performance.finish()
    assert borrower.pulled
    return borrower.lent


async def test_tools_are_lent_what_the_creator_of_their_session_lent(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new(environment=LENT)

    assert await lent_in(daemon, client, session) == LENT


async def test_tools_of_other_sessions_are_lent_nothing(daemon: Daemon, client: Client) -> None:
    await client.new(environment=LENT)
    other = await client.new()

    assert await lent_in(daemon, client, other) is None


async def test_loan_of_nothing_is_a_loan(daemon: Daemon, client: Client) -> None:
    session = await client.new(environment={})

    assert await lent_in(daemon, client, session) == {}


async def test_loan_survives_a_restart(daemon: Daemon, client: Client) -> None:
    session = await client.new(environment=LENT)

    async with open_daemon(await daemon.image()) as restarted:
        assert await lent_in(restarted, await restarted.connect(), session) == LENT


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"LD_PRELOAD": "/evil.so"}, "LD_PRELOAD"),
        ({"PATH": ""}, "PATH"),
        ({"PATH": "x" * (MAX_VARIABLE + 1)}, "PATH"),
        ({"PATH": "/bin\0:/usr/bin"}, "PATH"),
        ({"PATH": ["/bin"]}, "PATH"),
        ({"VIRTUAL_ENV": "venv"}, "VIRTUAL_ENV"),
        ({"SSH_AUTH_SOCK": "agent"}, "SSH_AUTH_SOCK"),
        ("PATH=/bin", "environment"),
    ],
)
async def test_what_cannot_be_lent_makes_no_session(
    client: Client, environment: Any, named: str
) -> None:
    with pytest.raises(InvalidParams, match=named):
        await client.new(environment=environment)

    assert await client.listed() == []

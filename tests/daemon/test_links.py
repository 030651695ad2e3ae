"""A call about a file is decided by where its links end, and is started only if they still do.

On the real clock: links are looked at in a thread, which a simulated one does not wait for.
"""

from pathlib import Path

import pytest

from moorage_daemon.grants.calls import Call, file_at
from tests.daemon.harness import Daemon
from tests.daemon.ledger.test_grants import ask
from tests.daemon.puppet import Lever, LeverArguments
from tests.daemon.test_ground import Pull, standing


class Opener(Lever):
    """A lever that is about a file."""

    def about(self, arguments: LeverArguments, cwd: str) -> Call:
        return Call("Read", file_at(cwd, arguments.label))


@pytest.mark.parametrize("is_changed", [True, False])
async def test_file_that_became_another_while_somebody_was_asked_is_left_alone(
    daemon: Daemon, tmp_path: Path, *, is_changed: bool
) -> None:
    client = await daemon.connect()
    session, grant = await standing(daemon, client, tools=None, budget={"calls": 5})
    link = tmp_path / "link"
    link.symlink_to("harmless")
    opener = Opener(asks=True)

    pull = await Pull(daemon, client, session).begin()
    pull.start(opener, str(link))
    question = await client.question()
    if is_changed:
        link.unlink()
        link.symlink_to("secret")
    client.choose(question)
    await pull.end()

    assert opener.pulled == ([] if is_changed else [str(link)])
    used = (await ask(client, "get", grantId=grant))["used"]["calls"]
    assert used == (0 if is_changed else 1)

"""A disk that is nearly full: nothing new begins, and all that ends something goes on."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.log.floor import LOOK, Floor
from moorage_protocol.errors import StorageError
from moorage_protocol.moorage import Outcome
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.twin import Client


pytestmark = pytest.mark.trio(run=simulated)

FLOOR = 64 * 2**20


async def test_no_session_and_no_turn_begins_below_the_floor(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    daemon.store.left = FLOOR - 1
    await trio.sleep(LOOK)

    with pytest.raises(StorageError):
        await client.new()
    with pytest.raises(StorageError):
        await client.prompt(session, "hello").verdict()

    assert not daemon.puppet.performances
    assert len(await daemon.log(session)) == 1


async def test_what_runs_goes_on_and_all_that_ends_something_works(
    daemon: Daemon, client: Client
) -> None:
    running, waiting = await client.new(), await client.new()
    reply = client.prompt(running, "hello")
    performance = await daemon.puppet.next()
    daemon.store.left = 0
    await trio.sleep(LOOK)

    await performance.say("still here")
    performance.finish()
    assert (await reply.verdict()).outcome is Outcome.COMPLETED
    assert client.text(running) == "still here"
    assert (await client.kill(running)).durable
    await client.delete(waiting)
    assert await client.listed() == [running]
    assert (await client.status()).store.low
    assert (await client.status()).store.healthy


async def test_it_goes_on_when_there_is_space_again(daemon: Daemon, client: Client) -> None:
    daemon.store.left = FLOOR - 1
    await trio.sleep(LOOK)
    with pytest.raises(StorageError):
        await client.new()

    daemon.store.left = FLOOR
    await trio.sleep(LOOK)

    reply = client.prompt(await client.new(), "hello")
    (await daemon.puppet.next()).finish()
    await reply.verdict()
    assert not (await client.status()).store.low


async def test_there_may_be_no_floor() -> None:
    async with open_daemon(disk_floor_mb=0) as daemon:
        daemon.store.left = 0
        client = await daemon.connect()

        await client.new()


async def test_the_disk_is_looked_at_once_a_second_and_no_more() -> None:
    looks = 0

    def free() -> int:
        nonlocal looks
        looks += 1
        return 10

    floor = Floor(free, 11)
    for _ in range(100):
        assert floor.is_reached
    assert looks == 1
    await trio.sleep(LOOK)
    assert floor.is_reached
    assert looks == 2
    await wait_all_tasks_blocked()

"""A client that sends more than its share is read later: it costs others nothing, and loses none
of what it says."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.connection.pace import BURST, RATE, STRIDE
from moorage_protocol import jsonrpc
from moorage_protocol.moorage import Cause, Outcome, StatusResult
from tests.daemon.harness import Daemon, simulated
from tests.daemon.twin import Client, Reply


pytestmark = pytest.mark.trio(run=simulated)

NOISE = jsonrpc.encode_notification("session/cancel", {"sessionId": "nobody's"})


def statuses(client: Client, count: int) -> tuple[list[bytes], list[Reply[StatusResult]]]:
    """So many questions, to be sent at once."""
    asked = [client.frame("_moorage/status", {}, StatusResult) for _ in range(count)]
    return [frame for frame, _ in asked], [reply for _, reply in asked]


async def test_what_is_sent_at_once_is_taken_at_once_up_to_a_burst(client: Client) -> None:
    frames, replies = statuses(client, BURST)

    client.post(*frames)
    await replies[-1].result()

    assert trio.current_time() == 0


async def test_what_is_beyond_the_burst_is_taken_at_its_rate_and_all_of_it(client: Client) -> None:
    frames, replies = statuses(client, BURST + 3000)

    client.post(*frames)
    with trio.fail_after(60):
        for reply in replies:
            await reply.arrived.wait()

    assert trio.current_time() == pytest.approx(3000 / RATE, abs=3 * STRIDE / RATE)
    assert [reply.place for reply in replies] == sorted(reply.place for reply in replies)


async def test_client_that_was_quiet_may_send_a_burst_again(client: Client) -> None:
    for _ in range(2):
        frames, replies = statuses(client, BURST)
        start = trio.current_time()
        client.post(*frames)
        await replies[-1].result()
        assert trio.current_time() == start

        await trio.sleep(BURST / RATE)


async def test_cancel_behind_a_flood_is_late_and_never_lost(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = client.prompt(session)
    await daemon.puppet.next()

    client.post(*[NOISE] * (BURST + 2000))
    client.notify("session/cancel", {"sessionId": session})

    assert (await reply.verdict()).cause is Cause.CLIENT_RPC
    assert trio.current_time() == pytest.approx(2000 / RATE, abs=3 * STRIDE / RATE)


async def test_others_are_served_between_the_frames_of_one_read(
    daemon: Daemon, client: Client
) -> None:
    """Whose turn takes a dozen of the loop's rounds meanwhile waits for a dozen strides."""
    flooder = await daemon.connect()
    session = await client.new()
    frames, replies = statuses(flooder, 1000)
    reply = client.prompt(session)
    flooder.post(*frames)

    (await daemon.puppet.next()).finish()
    told = await reply.verdict()

    assert told.outcome is Outcome.COMPLETED
    assert not replies[900].arrived.is_set()


async def test_client_waits_for_its_own_pace_alone(daemon: Daemon, client: Client) -> None:
    flooder = await daemon.connect()
    flooder.post(*[NOISE] * (BURST + 10_000))
    await wait_all_tasks_blocked()
    session = await client.new()

    reply = client.prompt(session)
    (await daemon.puppet.next()).finish()
    await reply.result()

    assert trio.current_time() == 0

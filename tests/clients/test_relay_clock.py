"""The relay on a clock of its own: how long it waits, and that it misses nothing meanwhile."""

import json

import pytest

from tests.clients.bridge_play import Message
from tests.clients.relay_world import Scenario, World


PROMPT: Message = {"sessionId": "s1", "prompt": []}


@pytest.fixture(params=[False, True], ids=["lines", "headers"])
def world(request: pytest.FixtureRequest) -> World:
    return World(by_header=request.param)


def test_open_request_is_answered_with_an_error_after_thirty_seconds_and_the_next_one_works(
    world: World,
) -> None:
    lost_at = 0.0

    def scenario(world: World) -> Scenario:
        nonlocal lost_at
        yield from world.begins()
        world.say(id=1, method="session/prompt", params=PROMPT)
        yield world.asked("session/prompt")
        lost_at, world.is_up = world.now, False
        world.daemon.die()
        yield world.has_answer(1)
        yield world.past(200)
        world.is_up = True
        world.say(id=2, method="session/list")
        yield world.connected(2)
        yield from world.greets()
        yield world.asked("session/list")
        world.daemon.answer("session/list", {"sessions": []})
        yield world.has_answer(2)

    world.run(scenario)

    [(at, answer)] = world.answers(1)
    assert 30 <= at - lost_at < 31
    assert answer["error"]["code"] == -32603
    assert [message["result"] for _, message in world.answers(2)] == [{"sessions": []}]
    assert "session/prompt" not in [message["method"] for message in world.daemon.got]


def test_daemon_that_is_back_in_time_answers_what_was_asked_of_the_one_before(
    world: World,
) -> None:
    def scenario(world: World) -> Scenario:
        yield from world.begins()
        world.say(id=1, method="session/prompt", params=PROMPT)
        yield world.asked("session/prompt")
        world.is_up = False
        world.daemon.send(id=9, method="session/request_permission", params={})
        world.daemon.socket.sendall(b'{"jsonrpc":"2.0","id":1,"resu')  # half a frame
        world.daemon.die()
        yield world.past(world.now + 29)
        world.is_up = True
        yield world.connected(2)
        yield from world.greets()
        yield world.asked("session/prompt")
        world.daemon.answer("session/prompt", {"stopReason": "cancelled"})
        yield world.has_answer(1)

    world.run(scenario)

    [(_, answer)] = world.answers(1)
    assert answer["result"] == {"stopReason": "cancelled"}
    prompts = [daemon.last("session/prompt") for daemon in world.daemons]
    assert prompts[0] == prompts[1]
    told = [(m.get("method"), m.get("id")) for _, m in world.heard if "method" in m]
    assert told == [("session/request_permission", 9), ("$/cancel_request", None)]


def test_daemon_that_never_says_hello_is_as_good_as_none(world: World) -> None:
    lost_at = 0.0

    def scenario(world: World) -> Scenario:
        nonlocal lost_at
        yield from world.begins()
        world.say(id=1, method="session/list")
        yield world.asked("session/list")
        lost_at = world.now
        world.daemon.die()
        yield world.has_answer(1)  # each next one takes the connection and says nothing
        yield world.connected(3)

    world.run(scenario)

    [(at, answer)] = world.answers(1)
    assert 30 <= at - lost_at < 31
    assert "error" in answer


def test_editor_that_takes_nothing_does_not_wait_for_a_daemon(world: World) -> None:
    """It is behind with what comes before the answer, however long that takes it."""
    large = "x" * 100_000

    def scenario(world: World) -> Scenario:
        yield from world.begins()
        world.say(id=1, method="session/new", params={"cwd": "/"})
        yield world.asked("session/new")
        world.daemon.answer("session/new", {"sessionId": "s1", "_meta": {"moorage": {"seq": 1}}})
        yield world.has_answer(1)
        world.say(id=2, method="session/prompt", params=PROMPT)
        yield world.asked("session/prompt")
        world.daemon.die()
        yield world.connected(2)
        world.daemon.is_quick = False
        yield from world.greets()
        yield world.asked("_moorage/session/attach")
        world.is_heard = False
        for seq in range(2, 15):
            params = {"sessionId": "s1", "update": {"text": large}, "seq": seq}
            world.daemon.send(method="session/update", params=params)
            yield world.past(world.now + 0.1)
        yield world.past(world.now + 100)
        world.is_heard = True
        world.daemon.answer("_moorage/session/attach", {"seq": 14})
        yield world.asked("session/prompt")
        world.daemon.answer("session/prompt", {"stopReason": "end_turn"})
        yield world.has_answer(2)

    world.run(scenario)

    assert [m["result"] for _, m in world.answers(2)] == [{"stopReason": "end_turn"}]
    told = [m["params"]["seq"] for _, m in world.heard if m.get("method") == "session/update"]
    assert told == list(range(2, 15))
    assert len(world.daemons) == 2


def test_last_words_of_a_daemon_are_heard_though_it_takes_nothing_more(world: World) -> None:
    """It died with megabytes on their way in both directions."""
    large = "x" * 400_000

    def scenario(world: World) -> Scenario:
        yield from world.begins()
        world.say(id=1, method="session/list")
        yield world.asked("session/list")
        for number in (2, 3):
            world.say(id=number, method="x", params={"text": large})
        yield world.past(world.now + 1)
        for seq in range(40):
            params = {"sessionId": "s1", "update": {"text": "y" * 2000}, "seq": seq}
            world.daemon.send(method="session/update", params=params)
        world.daemon.answer("session/list", {"sessions": []})
        world.is_up = False
        world.daemon.die()
        yield world.has_answer(1)

    world.run(scenario)

    told = [m["params"]["seq"] for _, m in world.heard if m.get("method") == "session/update"]
    assert told == list(range(40))
    assert [message["result"] for _, message in world.answers(1)] == [{"sessions": []}]


def test_editor_that_goes_is_followed_within_two_seconds_whatever_is_open(world: World) -> None:
    went_at = 0.0

    def scenario(world: World) -> Scenario:
        nonlocal went_at
        yield from world.begins()
        world.say(id=1, method="session/prompt", params=PROMPT)
        yield world.asked("session/prompt")
        world.is_up = False
        world.daemon.die()
        yield world.past(world.now + 5)
        went_at = world.now
        world.leave()

    world.run(scenario)

    assert world.now - went_at < 2


def test_request_of_an_editor_that_finds_no_daemon_waits_for_one() -> None:
    world = World()
    world.is_up = False

    def scenario(world: World) -> Scenario:
        world.say(id=0, method="initialize", params={"protocolVersion": 1})
        yield world.past(20)
        world.is_up = True
        yield world.connected(1)
        yield from world.greets()
        yield world.has_answer(0)

    world.run(scenario)

    assert json.dumps(world.answers(0)[0][1]["result"]) == '{"protocolVersion": 1}'

"""Permissions, settings, forms, terminals: lines 58 to 64 of what is asked of an agent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

import moorage_daemon
from moorage_protocol import jsonrpc
from moorage_protocol.acp import ConfigOption, Empty, SetConfigOptionResult, StopReason
from moorage_protocol.errors import InternalError, InvalidParams
from tests.acp.shapes import updates
from tests.acp.test_cancel import LENDING, Borrower
from tests.daemon.harness import Daemon, simulated
from tests.daemon.puppet import Lever, LeverArguments
from tests.daemon.twin import Client, Json, Question


simulated_clock = pytest.mark.trio(run=simulated)


# ---- permissions

NO: dict[str, Callable[[Client, Question], None]] = {
    "rejected": lambda client, question: client.choose(question, "reject"),
    "unknown option": lambda client, question: client.choose(question, "sure"),
    "no outcome": lambda client, question: client.answer(question, {}),
    "malformed": lambda client, question: client.answer(question, {"outcome": "allow"}),
    "an error": lambda client, question: client.post(
        jsonrpc.encode_error(question.id, InternalError())
    ),
    "gone": lambda client, question: client.leave(),
}


@pytest.mark.parametrize("answer", NO)
@simulated_clock
async def test_line_58_nothing_but_a_chosen_permission_starts_a_tool(
    daemon: Daemon, client: Client, answer: str
) -> None:
    lever = Lever(asks=True)
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    performance.begin(lever.call())
    question = await client.question()
    await wait_all_tasks_blocked()
    assert lever.pulled == []

    NO[answer](client, question)
    await wait_all_tasks_blocked()

    assert lever.pulled == []
    still_open = daemon.session(session).asks.open != {}
    assert still_open is (answer != "rejected"), "only a choice is a decision"


@pytest.mark.parametrize("option", ["allow", "always"])
@simulated_clock
async def test_line_58_a_chosen_permission_does(
    daemon: Daemon, client: Client, option: str
) -> None:
    lever = Lever(asks=True)
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    performance.begin(lever.call())

    client.choose(await client.question(), option)
    performance.finish()

    assert (await reply.result()).stop_reason is StopReason.END_TURN
    assert lever.pulled == ["A"]


# ---- settings


def values(options: list[ConfigOption]) -> dict[str, str]:
    return {option.id: option.current_value for option in options}


async def choose(client: Client, session: str, option: str, value: object) -> list[ConfigOption]:
    params: Json = {"sessionId": session, "configId": option, "value": value}
    answer = await client.call("session/set_config_option", params, SetConfigOptionResult)
    return answer.config_options


@simulated_clock
async def test_line_59_modes_and_the_option_of_that_category_stay_in_step(
    daemon: Daemon, client: Client
) -> None:
    made = await client.start_new().result()
    session = made.session_id
    assert isinstance(made.config_options, list)
    [option] = [option for option in made.config_options if option.category == "mode"]
    modes: Any = made.modes
    assert [mode.id for mode in modes.available_modes] == [c.value for c in option.options]
    assert modes.current_mode_id == option.current_value == "ask"

    params = {"sessionId": session, "modeId": "read-only"}
    await client.call("session/set_mode", params, Empty)
    assert values(await choose(client, session, option.id, "auto-edit"))[option.id] == "auto-edit"
    await wait_all_tasks_blocked()

    told = [m["params"]["update"] for m in updates(client) if "_meta" in m["params"]]
    assert [u["currentModeId"] for u in told if "currentModeId" in u] == ["read-only", "auto-edit"]
    lists = [u["configOptions"] for u in told if "configOptions" in u]
    assert [next(o["currentValue"] for o in one if o["id"] == option.id) for one in lists] == [
        "read-only",
        "auto-edit",
    ]
    for mode in ("", "nope", "ASK"):
        with pytest.raises(InvalidParams):
            await client.call("session/set_mode", params | {"modeId": mode}, Empty)


@simulated_clock
async def test_line_60_setting_an_option_answers_all_of_them_in_mid_turn_too(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    assert values(await choose(client, session, "model", "small"))["model"] == "small"
    client.prompt(session)
    await daemon.puppet.next()

    after = await choose(client, session, "model_provider", "ollama.default")

    assert values(after) == {
        "mode": "ask",
        "model": "default",  # another provider has other models
        "model_provider": "ollama.default",
        "temperature": "default",
    }
    for option, value in (("nope", "x"), ("model", "nope"), ("mode", "x"), ("temperature", "9")):
        with pytest.raises(InvalidParams):
            await choose(client, session, option, value)


@simulated_clock
async def test_line_61_every_option_has_a_value_of_its_list_and_none_has_to_be_set(
    daemon: Daemon, client: Client
) -> None:
    made = await client.start_new(overrides={"model": "odd", "temperature": 0.33}).result()
    assert isinstance(made.config_options, list)
    seen = [made.config_options, await choose(client, made.session_id, "model", "large")]

    for options in seen:
        assert len({option.id for option in options}) == len(options) == 4
        for option in options:
            assert [c.value for c in option.options].count(option.current_value) == 1
    assert (values(seen[0])["model"], values(seen[0])["temperature"]) == ("odd", "0.33")
    plain = await client.new()
    reply = client.prompt(plain)
    (await daemon.puppet.next()).finish()
    await reply.result()


@pytest.mark.parametrize("able", [{}, {"session": {"configOptions": {"boolean": {}}}}], ids=repr)
@simulated_clock
async def test_line_62_all_options_are_selects(daemon: Daemon, able: Json) -> None:
    client = await daemon.connect(plain=True, capabilities=able)
    made = await client.call("session/new", {"cwd": "/", "mcpServers": []}, dict[str, Any])
    session = made["sessionId"]
    answer = await choose(client, session, "mode", "read-only")

    assert {option["type"] for option in made["configOptions"]} == {"select"}
    assert len(answer) == len(made["configOptions"])
    for value in (True, False):
        params: Json = {"sessionId": session, "configId": "mode", "type": "boolean", "value": value}
        with pytest.raises(InvalidParams):
            await client.call("session/set_config_option", params, SetConfigOptionResult)


# ---- forms

FORMS: Json = {"elicitation": {"form": {}, "url": {}}}


async def test_line_63_no_form_is_ever_put_to_a_user(scripted: Daemon, tmp_path: Path) -> None:
    """A question is a permission request, also to those that show forms."""
    client = await scripted.connect(plain=True, capabilities=FORMS)
    session = await client.new(str(tmp_path))
    reply = client.prompt(session, "/ask yes or no?")

    client.choose(await client.question())
    await reply.result()

    methods = {m["method"] for m in client.messages if "method" in m}
    assert methods == {"session/update", "session/request_permission"}


def test_line_63_no_source_of_ours_knows_how_to() -> None:
    sources = Path(str(moorage_daemon.__file__)).parent.rglob("*.py")

    assert not [path for path in sources if '"elicitation/' in path.read_text()]


# ---- terminals


async def _cancel(daemon: Daemon, client: Client, session: str) -> None:
    client.notify("session/cancel", {"sessionId": session})


async def _kill(daemon: Daemon, client: Client, session: str) -> None:
    await (await daemon.connect()).kill(session)


async def _delete(daemon: Daemon, client: Client, session: str) -> None:
    await client.delete(session)


async def _end_of_input(daemon: Daemon, client: Client, session: str) -> None:
    client.wire.outgoing.close()


async def _exit(daemon: Daemon, client: Client, session: str) -> None:
    client.reply(await client.request("terminal/wait_for_exit"), {"exitCode": 0})


async def _refusal(daemon: Daemon, client: Client, session: str) -> None:
    client.reply(await client.request("terminal/wait_for_exit"), InternalError())


ENDS = [_cancel, _kill, _delete, _end_of_input, _exit, _refusal]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__[1:])
@simulated_clock
async def test_line_64_a_terminal_is_released_however_its_turn_ends(
    daemon: Daemon, end: Callable[[Daemon, Client, str], Any]
) -> None:
    client = await daemon.connect(plain=True, capabilities=LENDING)
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()

    async def borrow(stage: Any) -> None:
        await stage.call(Borrower("terminal"), LeverArguments())

    performance.begin(borrow)
    client.reply(await client.request("terminal/create"), {"terminalId": "t"})
    await client.request("terminal/wait_for_exit")

    await end(daemon, client, session)

    released = await client.request("terminal/release")
    assert released["params"] == {"sessionId": session, "terminalId": "t"}
    await wait_all_tasks_blocked()
    count = [m["method"] for m in client.messages if "method" in m].count("terminal/release")
    assert count == 1

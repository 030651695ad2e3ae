"""Overrides: what a patch does, when it applies, and how long it lasts."""

import msgspec
import pytest
from hypothesis import given, strategies as st
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.handlers.options import Offered
from moorage_daemon.handlers.overrides import patched
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import Outcome, Overrides, OverridesPatch
from tests.daemon.harness import PROVIDER, Daemon, open_daemon, simulated
from tests.daemon.twin import Client, Json


simulated_clock = pytest.mark.trio(run=simulated)

BEFORE: Json = {"model": "large", "model_provider": "anthropic.default", "temperature": 0.5}


# ---- the patch


@pytest.mark.parametrize(
    ("patch", "after"),
    [
        ({}, {}),
        ({"model": "small"}, {"model": "small"}),
        ({"model": None}, {"model": None}),
        ({"temperature": None}, {"temperature": None}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 2}, {"temperature": 2.0}),
        ({"model": "m" * 200}, {"model": "m" * 200}),
        ({"model_provider": "ollama.default"}, {"model_provider": "ollama.default", "model": None}),
        ({"model_provider": "anthropic.default"}, {"model": None}),
        ({"model_provider": None}, {"model_provider": None, "model": None}),
        ({"model": "small", "model_provider": None}, {"model": "small", "model_provider": None}),
        (
            {"model_provider": "ollama.default", "model": "m"},
            {"model_provider": "ollama.default", "model": "m"},
        ),
    ],
)
@simulated_clock
async def test_absent_keeps_null_clears_and_a_value_sets(
    client: Client, patch: Json, after: Json
) -> None:
    """A provider without a model clears the model, whichever provider it is."""
    session = await client.new(overrides=BEFORE)

    result = await client.configure(session, **patch)

    assert msgspec.to_builtins(result.overrides) == {
        name: value for name, value in (BEFORE | after).items() if value is not None
    }


@pytest.mark.parametrize(
    "patch",
    [
        {"model": ""},
        {"model": "m" * 201},
        {"model": 7},
        {"model_provider": "nobody"},
        {"model_provider": ""},
        {"temperature": -0.01},
        {"temperature": 2.01},
        {"temperature": "warm"},
        {"temprature": 1},
        {"model": "small", "temperature": 3},
        {"model": "small", "model_provider": "nobody"},
    ],
)
@simulated_clock
async def test_an_invalid_patch_changes_nothing(
    daemon: Daemon, client: Client, patch: Json
) -> None:
    """All of it or none: a good value beside a bad one is not kept."""
    session = await client.new(overrides=BEFORE)
    head, log = daemon.session(session).head, await daemon.log(session)

    with pytest.raises(InvalidParams):
        await client.configure(session, **patch)
    with pytest.raises(InvalidParams):
        await client.new(overrides=patch)

    await wait_all_tasks_blocked()
    assert daemon.session(session).head == head
    assert await daemon.log(session) == log
    assert await client.listed() == [session]


OFFERED = Offered(dict.fromkeys(("one", "two"), PROVIDER), "one")
NAMES = st.none() | st.just(msgspec.UNSET)
PATCHES = st.builds(
    OverridesPatch,
    model=NAMES | st.text(min_size=1, max_size=200),
    model_provider=NAMES | st.sampled_from(["one", "two"]),
    temperature=NAMES | st.floats(0, 2),
)


@given(st.lists(PATCHES, max_size=6))
def test_patches_add_up(patches: list[OverridesPatch]) -> None:
    """A patch applied twice is the patch applied once; what it names is what holds."""
    overrides = Overrides()
    for patch in patches:
        overrides = patched(overrides, patch, OFFERED)

        assert patched(overrides, patch, OFFERED) == overrides
        for name in ("model", "model_provider", "temperature"):
            wanted = getattr(patch, name)
            assert wanted is msgspec.UNSET or getattr(overrides, name) == wanted


# ---- when they apply


@simulated_clock
async def test_behaviour_31_configure_during_a_turn_is_answered_at_once_and_applies_to_the_next(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new(overrides={"model": "before"})
    running = client.prompt(session, "runs")
    client.prompt(session, "waits")
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()

    result = await client.configure(session, model="after")

    assert result.applies == "next_turn"
    assert performance.stage.overrides.model == "before"
    with pytest.raises(InvalidParams):
        await client.configure(session, model_provider="nobody")
    performance.finish()
    assert (await running.verdict()).outcome is Outcome.COMPLETED
    assert (await daemon.puppet.next()).stage.overrides.model == "after"
    models = [turn.overrides.model for turn in await client.turns(session)]
    assert models == ["before", "after"]


@simulated_clock
async def test_between_turns_they_apply_now(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    first = await client.configure(session, model="m")
    reply = client.prompt(session)
    (await daemon.puppet.next()).finish()
    await reply.result()

    second = await client.configure(session, temperature=1)

    assert (first.applies, second.applies) == ("now", "now")
    assert second.overrides == Overrides(model="m", temperature=1.0)


@simulated_clock
async def test_everybody_who_follows_the_session_is_told(daemon: Daemon, client: Client) -> None:
    other, plain = await daemon.connect(), await daemon.connect(plain=True)
    session = await client.new()
    await other.attach(session)
    await plain.resume(session)

    result = await client.configure(session, model="exact-name")
    await wait_all_tasks_blocked()

    told = [p for p in other.of_session(session) if p.get("kind") == "override"]
    assert [(t["overrides"], t["by"]) for t in told] == [({"model": "exact-name"}, client.tui)]
    for seer in (client, other, plain):
        entries = [p for p in seer.of_session(session) if "_meta" in p]
        updates = [p["update"] for p in entries if "update" in p]
        shown = [u for u in updates if u["sessionUpdate"] == "config_option_update"]
        assert len(shown) == 1
        options = {o["id"]: o for o in shown[0]["configOptions"]}
        assert options["model"]["currentValue"] == "exact-name"
        assert "exact-name" in [choice["value"] for choice in options["model"]["options"]]
    [model] = [option for option in result.config_options if option.id == "model"]
    assert model.current_value == "exact-name"


# ---- how long they last


@simulated_clock
async def test_they_survive_a_park_and_a_restart_and_end_with_the_session(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await client.configure(session, **BEFORE)
    await client.close(session)
    await client.load(session)
    assert daemon.session(session).head.overrides == Overrides(**BEFORE)

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        other.prompt(session)
        performance = await restarted.puppet.next()
        assert performance.stage.overrides == Overrides(**BEFORE)
        fresh = await other.new()
        assert restarted.session(fresh).head.overrides == Overrides()


@simulated_clock
async def test_overrides_that_were_not_durable_are_gone_after_a_crash(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new(overrides={"model": "before"})
    daemon.store.hold()
    patch = {"sessionId": session, "overrides": {"model": "after"}}
    reply = client.start("session/configure", patch, dict[str, object])
    await wait_all_tasks_blocked()
    assert not reply.arrived.is_set()

    async with open_daemon(await daemon.image()) as restarted:
        await (await restarted.connect()).attach(session)
        assert restarted.session(session).head.overrides.model == "before"

"""The posture of a session: what each lets its tools do, and that the gate keeps to it."""

from itertools import product
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import CallRefused, Stage
from moorage_daemon.store.model import Kind
from moorage_daemon.turn.posture import READ_ONLY, Asked, Deed, Refused, Unasked, lie_inside, rule
from moorage_protocol.acp import Empty, SetConfigOptionResult, ToolCallLocation, ToolKind
from moorage_protocol.errors import InvalidParams, NotFound, NotPermitted
from moorage_protocol.moorage import Posture
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever, LeverArguments
from tests.daemon.twin import PATIENCE, Client, Json


simulated_clock = pytest.mark.trio(run=simulated)

READ, EDIT, RUN = ToolKind.READ, ToolKind.EDIT, ToolKind.EXECUTE


# ---- the rule


@pytest.mark.parametrize(
    ("posture", "kind", "asks", "is_inside", "ruling"),
    [
        (Posture.ASK, READ, False, True, Unasked("not_asked")),
        (Posture.ASK, EDIT, True, True, Asked()),
        (Posture.ASK, RUN, True, False, Asked()),
        (Posture.ASK, RUN, False, False, Unasked("not_asked")),
        (Posture.AUTO_EDIT, READ, False, True, Unasked("not_asked")),
        (Posture.AUTO_EDIT, EDIT, True, True, Unasked("auto_edit")),
        (Posture.AUTO_EDIT, EDIT, True, False, Asked()),
        (Posture.AUTO_EDIT, ToolKind.DELETE, True, True, Asked()),
        (Posture.AUTO_EDIT, RUN, True, True, Asked()),
        (Posture.READ_ONLY, READ, False, True, Unasked("not_asked")),
        (Posture.READ_ONLY, READ, True, False, Asked()),
        (Posture.READ_ONLY, EDIT, True, True, READ_ONLY),
        (Posture.READ_ONLY, RUN, False, False, READ_ONLY),
    ],
)
def test_each_posture_lets_tools_do_this_much(
    posture: Posture, kind: ToolKind, asks: bool, is_inside: bool, ruling: object
) -> None:
    assert rule(posture, Deed(kind, asks, is_inside)) == ruling


def test_read_only_lets_nothing_pass_that_is_not_known_to_read() -> None:
    passing = {
        kind
        for kind, asks, inside in product(ToolKind, (True, False), (True, False))
        if not isinstance(rule(Posture.READ_ONLY, Deed(kind, asks, inside)), Refused)
    }

    assert passing == {ToolKind.READ, ToolKind.SEARCH, ToolKind.THINK}


def test_no_posture_leaves_a_call_unasked_that_wants_it_save_edits_inside() -> None:
    for posture, kind, inside in product(Posture, ToolKind, (True, False)):
        unasked = isinstance(rule(posture, Deed(kind, True, inside)), Unasked)
        assert unasked == (posture is Posture.AUTO_EDIT and kind is EDIT and inside)


@pytest.mark.parametrize(
    ("paths", "inside"),
    [
        (["/work/a"], True),
        (["/work/a/../b"], True),
        (["/work/../work/b"], True),
        (["/work/a", "/etc/passwd"], False),
        (["/work/../etc/passwd"], False),
        (["/workshop/a"], False),
        (["/work"], False),
        (["/work/.git/config"], False),
        (["/work/sub/.GIT/hooks/post-commit"], False),
        (["/work/.gitignore"], True),
        (["a"], False),
        ([], False),
    ],
)
def test_files_lie_inside_by_their_names(paths: list[str], inside: bool) -> None:
    assert lie_inside("/work", [ToolCallLocation(path=path) for path in paths]) is inside


@given(st.lists(st.sampled_from(["a", "work", "..", ".", ""]), max_size=6))
def test_a_name_is_inside_where_its_steps_lead_inside(steps: list[str]) -> None:
    root = ["deep", "work"]
    place = [*root]
    for step in steps:
        if step == "..":
            place = place[:-1]
        elif step not in (".", ""):
            place.append(step)
    path = "/".join(["", *root, *steps])

    found = lie_inside("/deep/work", [ToolCallLocation(path=path)])

    assert found == (place[:2] == root and len(place) > 2)


# ---- the gate


class Scene:
    """A session whose agent calls a lever and says what became of it."""

    def __init__(self, daemon: Daemon, client: Client, session: str) -> None:
        self.daemon, self.client, self.session = daemon, client, session

    async def attempt(self, lever: Lever) -> None:
        """Prompt, and have the agent call it."""
        await self.begin()
        self.call(lever)

    async def begin(self) -> None:
        self.reply = self.client.prompt(self.session)
        self.performance = await self.daemon.puppet.next()

    def call(self, lever: Lever) -> None:
        async def act(stage: Stage) -> None:
            try:
                await stage.say((await stage.call(lever, LeverArguments())).text)
            except CallRefused as refusal:
                await stage.say(str(refusal))

        self.done = self.performance.begin(act)

    async def finish(self) -> str:
        """Let the turn end; gives what the agent said."""
        with trio.fail_after(PATIENCE):
            await self.done.wait()
        self.performance.finish()
        await self.reply.result()
        return self.client.text(self.session)

    async def set(self, posture: Posture, client: Client | None = None) -> None:
        await set_mode(client or self.client, self.session, posture)

    async def recorded(self) -> list[Json]:
        """What the log says of tool calls."""
        return await self.client.entries(self.session, kinds=["ask", "intent", "result"])


async def set_mode(client: Client, session: str, mode: str) -> None:
    await client.call("session/set_mode", {"sessionId": session, "modeId": mode}, Empty)


@pytest.fixture
async def scene(daemon: Daemon, client: Client) -> Scene:
    return Scene(daemon, client, await client.new())


@simulated_clock
async def test_in_auto_edit_an_edit_of_the_workspace_is_made_unasked(scene: Scene) -> None:
    lever = Lever(asks=True, kind=EDIT, paths=("/work/a",))
    await scene.set(Posture.AUTO_EDIT)

    await scene.attempt(lever)
    await scene.finish()

    assert lever.pulled == ["A"]
    intent, result = await scene.recorded()
    assert (intent["kind"], intent["decision"]) == ("intent", "auto_edit")
    assert (result["kind"], result["status"]) == ("result", "completed")


@pytest.mark.parametrize(
    "lever",
    [
        Lever(asks=True),
        Lever(asks=True, kind=EDIT, paths=("/etc/passwd",)),
        Lever(asks=True, kind=EDIT),
    ],
    ids=["command", "edit-outside", "edit-of-nobody-knows-what"],
)
@simulated_clock
async def test_in_auto_edit_everything_else_is_asked_for(scene: Scene, lever: Lever) -> None:
    await scene.set(Posture.AUTO_EDIT)

    await scene.attempt(lever)
    question = await scene.client.question()
    assert lever.pulled == []
    scene.client.choose(question, "reject")
    await scene.finish()

    assert lever.pulled == []


@simulated_clock
async def test_in_read_only_nothing_but_reading_is_done_and_the_user_is_told(scene: Scene) -> None:
    lever, reader = Lever(), Lever(kind=READ, paths=("/work/a",))
    await scene.set(Posture.READ_ONLY)

    await scene.attempt(lever)
    said = await scene.finish()
    await scene.attempt(reader)
    await scene.finish()

    assert (lever.pulled, reader.pulled) == ([], ["A"])
    assert said == READ_ONLY.line
    refused, intent, completed = await scene.recorded()
    assert (refused["status"], refused["code"]) == ("refused", "read_only")
    assert (intent["decision"], completed["status"]) == ("not_asked", "completed")
    updates = [p["update"] for p in scene.client.of_session(scene.session) if "update" in p]
    failed = [u for u in updates if u.get("status") == "failed"]
    assert [u["content"][0]["content"]["text"] for u in failed] == [READ_ONLY.line]
    counts = (await scene.client.turns(scene.session))[0].verdict
    assert counts is not None
    assert (counts.tool_calls.failed, counts.tool_calls.completed) == (1, 0)


@simulated_clock
async def test_read_only_beats_what_was_always_allowed(scene: Scene) -> None:
    lever = Lever(asks=True)
    await scene.attempt(lever)
    scene.client.choose(await scene.client.question(), "always")
    await scene.finish()
    await scene.set(Posture.READ_ONLY)

    await scene.attempt(lever)
    await scene.finish()

    assert lever.pulled == ["A"]


@simulated_clock
async def test_what_was_allowed_is_not_started_in_a_session_made_read_only_meanwhile(
    scene: Scene,
) -> None:
    lever = Lever(asks=True)
    await scene.attempt(lever)
    question = await scene.client.question()
    await scene.set(Posture.READ_ONLY)

    scene.client.choose(question)
    said = await scene.finish()

    assert lever.pulled == []
    assert said == READ_ONLY.line
    asked, intent, result = await scene.recorded()
    assert [asked["kind"], intent["kind"]] == ["ask", "intent"]
    assert (result["status"], result["code"]) == ("refused", "read_only")


@simulated_clock
async def test_the_posture_is_read_again_in_the_tick_of_the_start(scene: Scene) -> None:
    lever = Lever()
    await scene.begin()
    scene.daemon.store.hold()
    scene.call(lever)
    await wait_all_tasks_blocked()  # its intent is on its way to the disk

    frame, reply = scene.client.frame(
        "session/set_mode", {"sessionId": scene.session, "modeId": "read-only"}, Empty
    )
    scene.client.post(frame)
    await wait_all_tasks_blocked()
    scene.daemon.store.release()
    await reply.result()
    await scene.finish()

    assert lever.pulled == []


@simulated_clock
async def test_a_running_turn_is_let_do_more_from_its_next_call_on(scene: Scene) -> None:
    lever = Lever(asks=True, kind=EDIT, paths=("/work/a",))
    await scene.begin()
    await scene.set(Posture.AUTO_EDIT)

    scene.call(lever)
    await scene.finish()

    assert lever.pulled == ["A"]
    assert scene.client.questions == []


# ---- the two faces of it


def mode_of(answer: Json) -> tuple[str, str]:
    """The current mode, and the option of that name."""
    [option] = [option for option in answer["configOptions"] if option["category"] == "mode"]
    return answer["modes"]["currentModeId"], option["currentValue"]


def told(client: Client, session: str) -> list[str]:
    """The modes that a client was told of by entries, in both their forms."""
    modes: list[str] = []
    for params in client.of_session(session):
        update = params.get("update", {})
        if "_meta" in params and "currentModeId" in update:
            modes.append(update["currentModeId"])
        elif "_meta" in params and "configOptions" in update:
            modes += [o["currentValue"] for o in update["configOptions"] if o["id"] == "mode"]
    return modes


@simulated_clock
async def test_mode_and_option_are_in_every_answer_that_lets_a_client_in(
    daemon: Daemon, client: Client
) -> None:
    params: Json = {"cwd": "/work", "mcpServers": []}
    made = await client.call("session/new", params, dict[str, Any])
    await set_mode(client, made["sessionId"], "read-only")

    named = {"sessionId": made["sessionId"], **params}
    loaded = await client.call("session/load", named, dict[str, Any])
    resumed = await client.call("session/resume", named, dict[str, Any])

    assert mode_of(made) == ("ask", "ask")
    assert mode_of(loaded) == mode_of(resumed) == ("read-only", "read-only")
    assert [mode["id"] for mode in made["modes"]["availableModes"]] == [*Posture]


@simulated_clock
async def test_who_attaches_is_told_mode_and_options(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await set_mode(client, session, "auto-edit")
    other = await daemon.connect()

    await other.attach(session)
    await wait_all_tasks_blocked()

    updates = [p["update"] for p in other.of_session(session)]
    assert [u["currentModeId"] for u in updates if "currentModeId" in u] == ["auto-edit"]
    [options] = [u["configOptions"] for u in updates if "configOptions" in u]
    assert {o["id"]: o["currentValue"] for o in options}["mode"] == "auto-edit"


@simulated_clock
async def test_either_way_to_set_it_is_told_in_both_forms_to_everybody(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    plain = await daemon.connect(plain=True)
    await plain.resume(session)

    await set_mode(plain, session, "read-only")
    params = {"sessionId": session, "configId": "mode", "value": "auto-edit"}
    answer = await client.call("session/set_config_option", params, SetConfigOptionResult)
    await wait_all_tasks_blocked()

    assert {o.id: o.current_value for o in answer.config_options}["mode"] == "auto-edit"
    for seer in (client, plain):
        assert told(seer, session) == ["read-only", "read-only", "auto-edit", "auto-edit"]
    entries = await client.entries(session, kinds=["posture"])
    assert [(e["posture"], e["by"] == client.tui) for e in entries] == [
        ("read-only", False),
        ("auto-edit", True),
    ]


@simulated_clock
async def test_overrides_and_mode_do_not_change_each_other(client: Client) -> None:
    session = await client.new()
    await set_mode(client, session, "read-only")

    result = await client.configure(session, model="m")
    await set_mode(client, session, "ask")
    await wait_all_tasks_blocked()

    assert {o.id: o.current_value for o in result.config_options}["mode"] == "read-only"
    updates = [p["update"] for p in client.of_session(session) if "update" in p]
    last = [u["configOptions"] for u in updates if "configOptions" in u][-1]
    assert {o["id"]: o["currentValue"] for o in last}["model"] == "m"


@pytest.mark.parametrize("mode", ["", "Ask", "code", "auto_edit", "yolo"])
@simulated_clock
async def test_a_mode_there_is_not_is_refused_and_changes_nothing(
    daemon: Daemon, client: Client, mode: str
) -> None:
    session = await client.new()
    before = daemon.session(session).log.seq

    with pytest.raises(InvalidParams):
        await set_mode(client, session, mode)
    params = {"sessionId": session, "configId": "mode", "value": mode}
    with pytest.raises(InvalidParams):
        await client.call("session/set_config_option", params, SetConfigOptionResult)

    assert daemon.session(session).head.posture is Posture.ASK
    assert daemon.session(session).log.seq == before


@simulated_clock
async def test_who_only_watches_sets_no_mode(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    watcher = await daemon.connect()
    await watcher.attach(session, access="observer")

    with pytest.raises(NotPermitted):
        await set_mode(watcher, session, "auto-edit")
    with pytest.raises(NotFound):
        await set_mode(client, "a" * 26, "ask")


@simulated_clock
async def test_the_posture_survives_a_park_and_a_restart_and_is_answered_when_durable(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    daemon.store.hold()
    reply = client.start("session/set_mode", {"sessionId": session, "modeId": "read-only"}, Empty)
    await wait_all_tasks_blocked()
    assert not reply.arrived.is_set()
    daemon.store.release()
    await reply.result()
    await client.close(session)
    await client.load(session)
    assert daemon.session(session).head.posture is Posture.READ_ONLY

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        await other.load(session)
        assert restarted.session(session).head.posture is Posture.READ_ONLY
        assert (await restarted.log(session))[-3].kind == Kind.POSTURE

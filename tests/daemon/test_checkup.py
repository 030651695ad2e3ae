"""What a daemon finds that looks at itself and its system instead of starting."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from moorage_daemon.checkup import check_settings, check_up, try_commands
from moorage_daemon.settings import Chosen, Flags, SettingsError, choose_settings
from moorage_daemon.statedir import open_state_dir
from moorage_daemon.store.opening import DATABASE
from moorage_daemon.store.sqlite import open_sqlite
from moorage_protocol.checkup import Checkup, Finding, State


PROVIDER = """
[providers.near]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "m"
api_key_env = "NEAR_KEY"
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def chosen(tmp_path: Path, state_dir: Path) -> Callable[[str], Callable[[], Chosen]]:
    """How settings of that text are read."""

    def written(text: str) -> Callable[[], Chosen]:
        file = tmp_path / "config.toml"
        file.write_text(text)
        return partial(choose_settings, Flags(str(file), str(state_dir)), {})

    return written


Written = Callable[[str], Callable[[], Chosen]]


def found(checkup: Checkup, name: str) -> Finding:
    (finding,) = [finding for finding in checkup.findings if finding.name == name]
    return finding


def names(checkup: Checkup) -> list[str]:
    return [finding.name for finding in checkup.findings]


async def test_settings_that_a_daemon_would_start_with_are_given(chosen: Written) -> None:
    assert (await check_settings(chosen("prompt_queue = 7"))).settings.prompt_queue == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt_queue = 0", "prompt_queue must be"),
        ('default_agent = "native"', "needs a provider"),
        ('default_agent = "unheard-of"', "there are: scripted"),
    ],
)
async def test_settings_without_a_start_are_refused_in_the_words_of_a_start(
    chosen: Written, text: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        await check_settings(chosen(text))

    finding = found(await check_up(chosen(text)), "settings")
    assert finding.state is State.BROKEN
    assert said in finding.said
    assert finding.advice


@pytest.mark.parametrize(
    "text",
    ['default_agent = "native"', 'default_agent = "unheard-of"', 'store = "foo:"'],
)
async def test_settings_that_mean_nothing_are_told_with_their_file(
    chosen: Written, text: str
) -> None:
    choose = chosen(text)
    file = str(choose().file)

    with pytest.raises(SettingsError) as caught:
        await check_settings(choose)

    assert caught.value.source == file
    assert found(await check_up(choose), "settings").said == str(caught.value)
    words = ["--config", file, "--state-dir", str(choose().settings.state_dir)]
    start = [sys.executable, "-m", "moorage_daemon", *words]
    ended = await trio.run_process(start, capture_stderr=True, check=False)
    assert (ended.returncode, ended.stderr.decode()) == (2, f"mooraged: {caught.value}\n")


async def test_all_is_good_on_a_system_that_has_all(chosen: Written, state_dir: Path) -> None:
    checkup = await check_up(chosen(""))

    assert names(checkup) == ["settings", "commands", "files", "descriptors"]
    assert {finding.state for finding in checkup.findings} == {State.GOOD}
    assert not state_dir.exists()


async def test_broken_settings_do_not_hide_the_rest(chosen: Written) -> None:
    assert names(await check_up(chosen("="))) == ["settings", "commands", "files", "descriptors"]


async def test_key_that_is_not_there_is_told_without_a_word_of_it(
    chosen: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEAR_KEY", raising=False)
    missing = found(await check_up(chosen(PROVIDER)), "provider near")
    monkeypatch.setenv("NEAR_KEY", "canary-key")
    there = found(await check_up(chosen(PROVIDER)), "provider near")

    assert (missing.state, there.state) == (State.WEAK, State.GOOD)
    assert "NEAR_KEY" in missing.said
    assert "canary" not in there.said + there.advice


async def test_store_that_cannot_be_opened_is_found(chosen: Written, state_dir: Path) -> None:
    state_dir.mkdir(0o700)
    (state_dir / DATABASE).write_bytes(b"no database, but long enough to be looked at " * 100)

    finding = found(await check_up(chosen("")), "store")

    assert finding.state is State.BROKEN
    assert DATABASE in finding.advice


async def test_store_of_a_daemon_that_ended_is_good(chosen: Written, state_dir: Path) -> None:
    state_dir.mkdir(0o700)
    async with open_sqlite(state_dir / DATABASE):
        pass

    assert found(await check_up(chosen("")), "store").state is State.GOOD


async def test_store_that_nobody_has_stops_a_start(chosen: Written) -> None:
    with pytest.raises(SettingsError, match="there are: sqlite:, file:, memory:"):
        await check_settings(chosen('store = "postgres:"'))


async def test_store_of_a_running_daemon_is_left_to_it(chosen: Written, state_dir: Path) -> None:
    with open_state_dir(state_dir):
        (state_dir / DATABASE).write_bytes(b"being written")

        assert "store" not in names(await check_up(chosen("")))


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("echo {here}", State.WEAK),  # a process that is left behind: this one
        ("exit 3", State.BROKEN),
        ("echo nothing", State.BROKEN),
    ],
)
async def test_commands_that_do_not_end_well_are_found(command: str, state: State) -> None:
    assert (await try_commands(command.format(here=os.getpid()))).state is state


async def test_process_that_a_trial_leaves_behind_is_gone() -> None:
    assert (await try_commands()).state is State.GOOD

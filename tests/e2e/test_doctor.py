"""`moorage doctor` and `moorage config`, on a machine that is well and on ones that are not."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from moorage_clients.cli.exits import Exit
from tests.e2e.commands import Ended, moorage
from tests.e2e.daemons import environment, running


Finding = dict[str, str]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A shell in which nobody has set anything up."""
    shell = {name: value for name, value in environment().items() if not name.startswith("XDG_")}
    return {**shell, "HOME": str(tmp_path)}


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with TemporaryDirectory(prefix="moorage-") as path:
        yield Path(path) / "state"


@pytest.fixture
def ended(state_dir: Path) -> Path:
    """A state directory whose daemon was stopped."""
    with running(state_dir) as process:
        assert process.stop() == 0
    return state_dir


Examine = Callable[..., tuple[Exit, dict[str, Finding]]]


@pytest.fixture
def examine(home: dict[str, str], state_dir: Path, tmp_path: Path) -> Examine:
    """Run the doctor: its exit code, and what is not good by name."""

    def run(*words: str) -> tuple[Exit, dict[str, Finding]]:
        found = moorage("doctor", "--json", *words, state_dir=state_dir, cwd=tmp_path, env=home)
        told: dict[str, Any] = json.loads(found.out)
        assert told["ok"] is (found.code == Exit.OK)
        bad = [finding for finding in told["findings"] if finding["state"] != "good"]
        return Exit(found.code), {finding["name"]: finding for finding in bad}

    return run


def test_machine_without_a_daemon_is_well_and_stays_as_it_is(
    examine: Examine, state_dir: Path
) -> None:
    assert examine() == (Exit.OK, {})
    assert not state_dir.exists()


def test_daemon_is_well_while_it_runs_and_when_it_was_killed(
    examine: Examine, state_dir: Path
) -> None:
    with running(state_dir) as process:
        assert examine() == (Exit.OK, {})
        process.process.kill()
        process.ended()

    assert (state_dir / "daemon.json").exists()
    assert examine() == (Exit.OK, {})


def test_report_for_people_says_what_to_do(
    ended: Path, home: dict[str, str], tmp_path: Path
) -> None:
    (ended / "token").chmod(0o644)

    found = moorage("doctor", state_dir=ended, cwd=tmp_path, env=home)

    assert found.code == Exit.FAILED
    lines = found.out.splitlines()
    problem = next(place for place, line in enumerate(lines) if line.startswith("problem"))
    assert "mode 0644" in lines[problem]
    assert f"rm {ended / 'token'}" in lines[problem + 1]
    assert lines[-1] == "1 problem, 0 warnings."


def broken_store(state_dir: Path) -> None:
    (state_dir / "sessions.db").write_bytes(b"none of ours " * 1000)


def readable_key(state_dir: Path) -> None:
    (state_dir / "key").chmod(0o640)


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [(broken_store, "store", "sessions.db"), (readable_key, "key", "mode 0640")],
)
def test_doctor_and_start_agree_on_what_is_a_problem(
    examine: Examine,
    ended: Path,
    home: dict[str, str],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    name: str,
    said: str,
) -> None:
    spoil(ended)

    code, bad = examine()
    start = moorage("daemon", "start", state_dir=ended, cwd=tmp_path, env=home)

    assert (code, start.code) == (Exit.FAILED, Exit.NO_DAEMON)
    assert said in bad[name]["said"]
    assert said in start.err
    assert bad[name]["advice"]


def test_daemon_that_cannot_be_reached_is_a_problem(examine: Examine, state_dir: Path) -> None:
    with running(state_dir) as process:
        Path(process.ready["unix"]).unlink()
        (state_dir / "token").write_text("x" * 43)

        code, bad = examine()

    assert (code, set(bad)) == (Exit.FAILED, {"daemon", "websocket"})
    assert {finding["state"] for finding in bad.values()} == {"broken"}


# ---- the settings file


@pytest.fixture
def config(home: dict[str, str], state_dir: Path, tmp_path: Path) -> Callable[..., Ended]:
    """Run `moorage config` with a settings file of that text."""

    def run(text: str | bytes, *words: str) -> Ended:
        file = tmp_path / "draft.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return moorage(
            "config", *words, "--config", "draft.toml", state_dir=state_dir, cwd=tmp_path, env=home
        )

    return run


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 1", "unknown key 'colour'"),
        (b"\xff", "is not UTF-8"),
        ('default_agent = "native"', "needs a provider"),
    ],
)
def test_settings_that_no_daemon_starts_with_are_told_in_one_line(
    config: Callable[..., Ended], examine: Examine, text: str | bytes, said: str
) -> None:
    found = config(text, "check")

    assert found.code == Exit.FAILED
    assert said in found.err
    assert len(found.err.splitlines()) == 1
    code, bad = examine("--config", "draft.toml")
    assert (code, set(bad)) == (Exit.FAILED, {"settings"})
    assert bad["settings"]["said"] in found.err


def test_settings_file_that_is_not_there_is_told(home: dict[str, str], tmp_path: Path) -> None:
    found = moorage("config", "check", "--config", "nothing.toml", cwd=tmp_path, env=home)

    assert found.code == Exit.FAILED
    assert "nothing.toml: there is no such file" in found.err


def test_good_settings_are_in_order(config: Callable[..., Ended], tmp_path: Path) -> None:
    assert config("prompt_queue = 7", "check").out == f"In order: {tmp_path / 'draft.toml'}\n"


def test_settings_in_effect_are_shown_with_where_they_were_said(
    config: Callable[..., Ended], tmp_path: Path
) -> None:
    lines = config("prompt_queue = 7", "show").out.splitlines()

    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["prompt_queue"] == ["7", str(tmp_path / "draft.toml")]
    assert rows["grace_seconds"] == ["5", "default"]
    assert rows["state_dir"][1] == "MOORAGE_STATE_DIR"


def test_no_key_of_a_provider_is_shown(
    config: Callable[..., Ended], home: dict[str, str], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text("canary-in-a-file")
    home["NEAR_KEY"] = "canary-in-the-environment"
    text = f"""
        [providers.near]
        kind = "openai"
        base_url = "http://127.0.0.1:1/v1"
        model = "m"
        api_key_env = "NEAR_KEY"
        [providers.far]
        kind = "openai"
        base_url = "http://127.0.0.1:2/v1"
        model = "m"
        api_key_file = "{key}"
        """

    shown = config(f'default_provider = "near"\n{text}', "show")
    examined = moorage("doctor", "--config", "draft.toml", cwd=tmp_path, env=home)

    assert shown.code == Exit.OK
    assert "NEAR_KEY" in shown.out
    assert "canary" not in shown.out + shown.err + examined.out + examined.err
    assert "provider far" in examined.out


def test_key_that_is_missing_is_a_warning(config: Callable[..., Ended], examine: Examine) -> None:
    text = """
        [providers.near]
        kind = "openai"
        base_url = "http://127.0.0.1:1/v1"
        model = "m"
        api_key_env = "A_KEY_THAT_NOBODY_HAS"
        """
    assert config(text, "check").code == Exit.OK

    code, bad = examine("--config", "draft.toml")

    assert (code, set(bad)) == (Exit.OK, {"provider near"})
    assert "A_KEY_THAT_NOBODY_HAS" in bad["provider near"]["said"]

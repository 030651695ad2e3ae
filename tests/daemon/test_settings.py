"""What the daemon may be told, and that it starts only as it was told."""

import dataclasses
import os
import re
from pathlib import Path

import pytest
from platformdirs import user_config_path

from moorage_daemon.grant_settings import CredentialSource, GrantSettings
from moorage_daemon.provider_settings import ProviderKind, ProviderSettings
from moorage_daemon.retention import Retention
from moorage_daemon.settings import (
    ClosePolicy,
    Flags,
    Settings,
    SettingsError,
    StoreAddress,
    WebsocketAddress,
    load_settings,
)
from moorage_protocol.config import PermissionDefault, Permissions
from moorage_protocol.grants import Sensitivity


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("MOORAGE_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(path: Path, text: str) -> Settings:
    return load_settings(Flags(config=str(write(path / "moorage.toml", text))))


def test_missing_default_file_means_defaults(home: Path) -> None:
    settings = load_settings(Flags())

    assert settings == Settings(state_dir=home / ".local/state/moorage")
    assert settings.default_agent == "scripted"
    assert settings.store == StoreAddress("sqlite", "")
    assert settings.websocket == WebsocketAddress("127.0.0.1", 0)
    assert settings.allowed_origins == settings.allowed_hosts == ()
    assert (settings.providers, settings.default_provider) == ({}, None)
    assert (settings.prompt_queue, settings.grace_seconds) == (32, 5)
    assert settings.turn_timeout_seconds == settings.permission_timeout_seconds == 0
    assert settings.close_policy is ClosePolicy.DETACH


def test_default_file_is_read_where_platformdirs_puts_it() -> None:
    write(user_config_path("moorage") / "config.toml", "prompt_queue = 7")

    assert load_settings(Flags()).prompt_queue == 7


def test_every_key_of_the_file_arrives(home: Path) -> None:
    text = """
        default_agent = "other"
        store = "memory:"
        websocket = "[::1]:4711"
        allowed_origins = ["https://example.org", "vscode-webview://abc:1"]
        allowed_hosts = ["moor.example.org:443", "moor"]
        prompt_queue = 1
        grace_seconds = 0.5
        turn_timeout_seconds = 60
        permission_timeout_seconds = 600.0
        close_policy = "close"
        disk_floor_mb = 0
        default_provider = "two"
        [providers.one]
        kind = "openai"
        base_url = "https://api.example.org/v1"
        model = "m"
        [providers.two]
        kind = "openai"
        base_url = "http://localhost:11434/v1/"
        model = "small model:7b"
        models = ["large"]
        api_key_file = "~/key"
        context_tokens = 8192
        connect_seconds = 1
        first_token_seconds = 2
        silence_seconds = 3.5
        retry_seconds = 0

        [grants]
        max_per_agent = 3
        retention_days = 0.5

        [grants.credentials]
        token = {env = "TOKEN"}
        key = {file = "~/key"}

        [grants.sensitivity]
        restricted = ["Read(secrets/**)"]

        [permissions]
        deny = ["Bash(rm:*)"]
        default = "ask"

        [retention]
        days = 90
        max_entries = 10000
    """
    expected = Settings(
        state_dir=home / ".local/state/moorage",
        default_agent="other",
        store=StoreAddress("memory", ""),
        websocket=WebsocketAddress("::1", 4711),
        allowed_origins=("https://example.org", "vscode-webview://abc:1"),
        allowed_hosts=("moor.example.org:443", "moor"),
        prompt_queue=1,
        grace_seconds=0.5,
        turn_timeout_seconds=60,
        permission_timeout_seconds=600,
        close_policy=ClosePolicy.CLOSE,
        default_provider="two",
        grants=GrantSettings(
            max_per_agent=3,
            retention_days=0.5,
            credentials={
                "token": CredentialSource(env="TOKEN"),
                "key": CredentialSource(file=home / "key"),
            },
            sensitivity={Sensitivity.RESTRICTED: ("Read(secrets/**)",)},
        ),
        permissions=Permissions(deny=("Bash(rm:*)",), default=PermissionDefault.ASK),
        retention=Retention(days=90, max_entries=10_000),
        disk_floor_mb=0,
        providers={
            "one": ProviderSettings(ProviderKind.OPENAI, "https://api.example.org/v1", "m"),
            "two": ProviderSettings(
                ProviderKind.OPENAI,
                "http://localhost:11434/v1",
                "small model:7b",
                models=("large",),
                api_key_file=home / "key",
                context_tokens=8192,
                connect_seconds=1,
                first_token_seconds=2,
                silence_seconds=3.5,
                retry_seconds=0,
            ),
        },
    )

    assert load(home, text) == expected
    defaults = Settings(state_dir=expected.state_dir)
    unchanged = {
        field.name
        for field in dataclasses.fields(Settings)
        if getattr(expected, field.name) == getattr(defaults, field.name)
    }
    assert unchanged == {"state_dir"}


def test_flag_beats_variable_and_variable_beats_default_file(home: Path) -> None:
    write(user_config_path("moorage") / "config.toml", "prompt_queue = 1")
    two = write(home / "two.toml", "prompt_queue = 2")
    three = write(home / "three.toml", "prompt_queue = 3")
    env = {"MOORAGE_CONFIG": str(two), "MOORAGE_STATE_DIR": "/env", "HOME": str(home)}

    from_file = load_settings(Flags(), {"HOME": str(home), "MOORAGE_CONFIG": ""})
    from_variable = load_settings(Flags(), env)
    from_flag = load_settings(Flags(config=str(three), state_dir="/flag"), env)

    assert (from_file.prompt_queue, str(from_file.state_dir)) == (
        1,
        str(home / ".local/state/moorage"),
    )
    assert (from_variable.prompt_queue, str(from_variable.state_dir)) == (2, "/env")
    assert (from_flag.prompt_queue, str(from_flag.state_dir)) == (3, "/flag")


def test_websocket_flag_beats_the_file(home: Path) -> None:
    path = str(write(home / "c.toml", 'websocket = "127.0.0.1:1"'))

    on = load_settings(Flags(config=path, websocket="127.0.0.1:2"))
    off = load_settings(Flags(config=path, websocket=""))

    assert on.websocket == WebsocketAddress("127.0.0.1", 2)
    assert off.websocket is None


def test_relative_paths_become_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    write(home / "c.toml", "prompt_queue = 3")

    settings = load_settings(Flags(config="c.toml", state_dir="state"))

    assert (settings.prompt_queue, settings.state_dir) == (3, home / "state")


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("127.8.9.10:65535", "127.8.9.10", 65535),
        ("localhost:80", "127.0.0.1", 80),
        ("LOCALHOST:80", "127.0.0.1", 80),
        ("[::1]:80", "::1", 80),
        ("[0:0:0:0:0:0:0:1]:80", "::1", 80),
    ],
)
def test_loopback_address_is_accepted(written: str, host: str, port: int) -> None:
    settings = load_settings(Flags(websocket=written))

    assert settings.websocket == WebsocketAddress(host, port)


def test_empty_websocket_in_the_file_switches_it_off(home: Path) -> None:
    assert load(home, 'websocket = ""').websocket is None


BEYOND_LOOPBACK = [
    "0.0.0.0:80",
    "[::]:80",
    ":80",
    "[]:80",
    "example.org:80",
    "localhost.example.org:80",
    "localhost.:80",
    "169.254.1.1:80",
    "[fe80::1]:80",
    "[fe80::1%lo]:80",
    "[::1%lo]:80",
    "[::ffff:127.0.0.1]:80",
    "192.168.0.1:80",
    "128.0.0.1:80",
    "127.1:80",
    "0x7f.0.0.1:80",
    "2130706433:80",
    "127.0.0.01:80",
    "::1:80",
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:65536",
    "127.0.0.1:-1",
    "127.0.0.1:+1",
    "127.0.0.1:1_0",
    "127.0.0.1:\u0661",
    " 127.0.0.1:80",
    "127.0.0.1:80\n",
    "ws://127.0.0.1:80",
]


@pytest.mark.parametrize("written", BEYOND_LOOPBACK)
def test_address_beyond_loopback_refuses_to_start(written: str) -> None:
    with pytest.raises(SettingsError, match=r"--websocket: .*must be .*loopback") as caught:
        load_settings(Flags(websocket=written))

    assert len(str(caught.value).splitlines()) == 1


BAD_VALUES = [
    ("default_agent", "5"),
    ("default_agent", '""'),
    ("default_agent", '"../x"'),
    ("default_agent", '"two words"'),
    ("store", '"sqlite"'),
    ("store", '["sqlite:"]'),
    ("store", '"SQLITE:"'),
    ("store", '":x"'),
    ("store", '"file:a\\nb"'),
    ("store", '"file:a\\u0000b"'),
    ("store", "{ a = 1 }"),
    ("websocket", "false"),
    ("websocket", "80"),
    ("websocket", '"0.0.0.0:80"'),
    ("allowed_origins", '"https://example.org"'),
    ("allowed_origins", '["*"]'),
    ("allowed_origins", '["https://*.example.org"]'),
    ("allowed_origins", '["null"]'),
    ("allowed_origins", '["example.org"]'),
    ("allowed_origins", '["https://example.org/"]'),
    ("allowed_origins", "[1]"),
    ("allowed_hosts", '["*"]'),
    ("allowed_hosts", '[""]'),
    ("allowed_hosts", '["https://example.org"]'),
    ("allowed_hosts", '["a", 1]'),
    ("prompt_queue", "0"),
    ("prompt_queue", "1025"),
    ("prompt_queue", "-1"),
    ("prompt_queue", "true"),
    ("prompt_queue", "1.0"),
    ("prompt_queue", '"32"'),
    ("grace_seconds", "-0.1"),
    ("grace_seconds", "3600.5"),
    ("grace_seconds", "true"),
    ("grace_seconds", "nan"),
    ("grace_seconds", "inf"),
    ("grace_seconds", '"5"'),
    ("turn_timeout_seconds", "-1"),
    ("turn_timeout_seconds", "inf"),
    ("turn_timeout_seconds", "0x" + "f" * 5000),
    ("turn_timeout_seconds", "12:00:00"),
    ("permission_timeout_seconds", "false"),
    ("permission_timeout_seconds", "-nan"),
    ("disk_floor_mb", "-1"),
    ("disk_floor_mb", "1.5"),
    ("disk_floor_mb", "true"),
    ("close_policy", '"Detach"'),
    ("close_policy", "true"),
]


@pytest.mark.parametrize(
    ("key", "value"), BAD_VALUES, ids=[f"{key} {value[:20]}" for key, value in BAD_VALUES]
)
def test_bad_value_is_one_line_with_file_and_key_and_what_is_allowed(
    home: Path, key: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(home, f"{key} = {value}")

    line = str(caught.value)
    assert line.startswith(f"{home / 'moorage.toml'}: {key} must be ")
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("key", ["promt_queue", "provider", "state_dir", '"a\\nb"'])
def test_unknown_key_is_named_beside_the_known_ones(home: Path, key: str) -> None:
    with pytest.raises(SettingsError, match=r"unknown key .*prompt_queue") as caught:
        load(home, f"{key} = 1")

    assert key.strip('"') in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_table_is_an_unknown_key(home: Path) -> None:
    with pytest.raises(SettingsError, match="unknown key 'agents'"):
        load(home, "[agents.one]\nname = 1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("grants = 5", "grants must be a table"),
        ("[grants]\nmax_per_agent = -1", "grants.max_per_agent must be a whole number"),
        ("[grants]\nmax_per_agent = true", "grants.max_per_agent must be"),
        ("[grants]\nretention_days = nan", "grants.retention_days must be days"),
        ("[grants]\nretention_days = '1'", "grants.retention_days must be days"),
        ("[grants]\nmax = 1", "unknown key 'max', there are: max_per_agent"),
        ("[grants.credentials]\na = 'x'", "grants.credentials must be tables"),
        ("[grants.credentials]\na = {env = 'x', file = 'y'}", "grants.credentials must be"),
        ("[grants.credentials]\na = {env = 'a b'}", "grants.credentials must be"),
        ("[grants.credentials]\n'a b' = {env = 'x'}", "grants.credentials must be"),
        ("[grants.sensitivity]\nsecret = ['Read']", "grants.sensitivity must be lists"),
        ("[grants.sensitivity]\npublic = ['Bash(*)']", "the rule 'Bash(*)' cannot be read"),
        ("permissions = []", "permissions must be a table"),
        ("[permissions]\ndeny = 'Read'", "permissions.deny must be a list of rules"),
        ("[permissions]\nallow = ['Bash(git *)']", "the rule 'Bash(git *)' cannot be read"),
        ("[permissions]\ndefault = 'maybe'", "permissions.default must be"),
        ("[permissions]\nalow = []", "unknown key 'alow', there are: deny"),
        ("retention = 5", "retention must be a table"),
        ("[retention]\ndays = -1", "retention.days must be days"),
        ("[retention]\nmax_entries = 1.5", "retention.max_entries must be a whole number"),
        ("[retention]\nweeks = 1", "unknown key 'weeks', there are: days, max_entries"),
    ],
)
def test_tables_are_as_they_have_to_be(home: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(problem)) as caught:
        load(home, text)

    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    ["prompt_queue", "a = 1\na = 2", "a = " + "[" * 5000, "a = " + "1" * 5000],
    ids=["no value", "twice", "deep", "huge"],
)
def test_file_that_is_no_toml_is_refused_in_one_line(home: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="is not TOML") as caught:
        load(home, text)

    assert len(str(caught.value).splitlines()) == 1


def test_file_that_is_no_text_is_refused(home: Path) -> None:
    (home / "c.toml").write_bytes(b"store = '\xff'")

    with pytest.raises(SettingsError, match="not UTF-8"):
        load_settings(Flags(config=str(home / "c.toml")))


def test_named_file_that_is_missing_is_refused(home: Path) -> None:
    missing = str(home / "missing.toml")

    with pytest.raises(SettingsError, match=r"missing\.toml: there is no such file"):
        load_settings(Flags(config=missing))
    with pytest.raises(SettingsError, match=r"missing\.toml: there is no such file"):
        load_settings(Flags(), {"MOORAGE_CONFIG": missing, "HOME": str(home)})


def test_file_that_cannot_be_read_is_refused_even_at_the_default_place(
    home: Path,
) -> None:
    (user_config_path("moorage") / "config.toml").mkdir(parents=True)

    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(Flags(config=str(home)))
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(Flags())


@pytest.mark.parametrize(
    ("flags", "name"),
    [(Flags(config=""), "--config"), (Flags(state_dir=""), "--state-dir")],
    ids=["config", "state dir"],
)
def test_flag_with_an_empty_path_is_refused(flags: Flags, name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: must name a path"):
        load_settings(flags)

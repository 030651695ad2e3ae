"""A provider is what its table says, whole, or the daemon does not start."""

from pathlib import Path

import pytest

from moorage_daemon.provider_settings import Price, ProviderSettings
from moorage_daemon.settings import Flags, Settings, SettingsError, load_settings


ENOUGH = """
kind = "openai"
base_url = "https://api.example.org/v1"
model = "m"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def load(path: Path, text: str) -> Settings:
    file = path / "moorage.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(Flags(config=str(file)))


def provider(path: Path, text: str) -> ProviderSettings:
    return load(path, f"[providers.one]\n{text}").providers["one"]


def problem(path: Path, text: str) -> str:
    """The one line with which that is refused, without the name of the file."""
    with pytest.raises(SettingsError) as caught:
        load(path, text)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line.removeprefix(f"{path / 'moorage.toml'}: ")


def test_provider_without_a_key_has_none(home: Path) -> None:
    assert not provider(home, ENOUGH).has_key


def test_key_is_named_by_variable_or_file(home: Path) -> None:
    by_variable = provider(home, ENOUGH + 'api_key_env = "EXAMPLE_KEY"')
    by_file = provider(home, ENOUGH + 'api_key_file = "/run/secrets/key"')

    assert by_variable.api_key_env == "EXAMPLE_KEY"
    assert by_file.api_key_file == Path("/run/secrets/key")
    assert by_variable.has_key
    assert by_file.has_key


def test_both_kinds_of_key_exclude_each_other(home: Path) -> None:
    text = f'[providers.one]{ENOUGH}api_key_env = "A"\napi_key_file = "/b"'

    assert problem(home, text) == ("providers.one: api_key_env and api_key_file exclude each other")


def test_a_key_itself_has_no_place_in_the_file(home: Path) -> None:
    line = problem(home, f'[providers.one]{ENOUGH}api_key = "sk-canary"')

    assert line.startswith("unknown key providers.one.'api_key', there are: ")
    assert "canary" not in line


@pytest.mark.parametrize("key", ["kind", "base_url", "model"])
def test_what_a_provider_cannot_do_without_is_asked_for(home: Path, key: str) -> None:
    text = "".join(line for line in ENOUGH.splitlines(keepends=True) if not line.startswith(key))

    assert problem(home, f"[providers.one]{text}") == f"providers.one.{key} is missing"


BAD_VALUES = [
    ("kind", '"anthropic"'),
    ("kind", "[]"),
    ("base_url", '"api.example.org"'),
    ("base_url", '"ftp://example.org"'),
    ("base_url", '"https://"'),
    ("base_url", '"https://user:canary@example.org"'),
    ("base_url", '"https://example.org/v1?key=canary"'),
    ("base_url", '"https://example.org/#canary"'),
    ("base_url", '"https://example.org:99999"'),
    ("base_url", '"https://exa mple.org"'),
    ("base_url", '"https://example.org/\\u00e9"'),
    ("base_url", '"https://example.org\\\\@evil"'),
    ("base_url", "1"),
    ("model", '""'),
    ("model", '" m"'),
    ("model", '"m\\n"'),
    ("model", f'"{"m" * 201}"'),
    ("models", '"m"'),
    ("models", '["m", 1]'),
    ("api_key_env", '"A-B"'),
    ("api_key_env", '"$A"'),
    ("api_key_env", '""'),
    ("api_key_file", '"key"'),
    ("api_key_file", '"./key"'),
    ("api_key_file", '"~nobody-of-that-name/key"'),
    ("api_key_file", '"/a\\u0000b"'),
    ("context_tokens", "0"),
    ("context_tokens", "1.5"),
    ("context_tokens", "true"),
    ("proxy", '"socks5://127.0.0.1:1"'),
    ("proxy", '"http://user:canary@127.0.0.1:1"'),
    ("proxy", '"http://127.0.0.1:1/path"'),
    ("connect_seconds", "0"),
    ("connect_seconds", "nan"),
    ("first_token_seconds", "inf"),
    ("silence_seconds", "86400.5"),
    ("silence_seconds", "true"),
    ("retry_seconds", "-1"),
    ("retry_seconds", '"1"'),
    ("prices", "1"),
    ("prices", "{ small = 2.0 }"),
    ("prices", "{ small = { input = 1.0 } }"),
    ("prices", "{ small = { input = 1.0, output = -0.1 } }"),
    ("prices", "{ small = { input = nan, output = 1.0 } }"),
    ("prices", "{ small = { input = 100001, output = 1.0 } }"),
    ("prices", "{ small = { input = 1.0, output = 1.0, canary = 1.0 } }"),
    ("prices", '{ "" = { input = 1.0, output = 1.0 } }'),
]


def test_prices_go_by_model(home: Path) -> None:
    prices = "[providers.one.prices]\n'gpt-4.1' = { input = 2, output = 8.0, cached = 0.5 }"

    found = provider(home, f"{ENOUGH}\n{prices}\nfree = {{ input = 0, output = 0 }}").prices

    assert found == {"gpt-4.1": Price(2.0, 8.0, 0.5), "free": Price(0.0, 0.0)}
    assert found["gpt-4.1"].micros(asked=1_000_000, cached=500_000, answered=10) == 1_250_080
    assert Price(2.0, 8.0).micros(asked=1_000_000, cached=500_000, answered=0) == 2_000_000


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_bad_value_is_named_and_not_repeated(home: Path, key: str, value: str) -> None:
    table = "".join(line + "\n" for line in ENOUGH.splitlines() if not line.startswith(f"{key} "))

    line = problem(home, f"[providers.one]{table}\n{key} = {value}")

    assert line.startswith(f"providers.one.{key} must be ")
    assert "canary" not in line


@pytest.mark.parametrize(
    ("address", "extra"),
    [
        ("http://example.org/v1", ""),
        ("http://192.168.1.5:8000", ""),
        ("http://127.0.0.1.example.org", ""),
        ("http://localhost.example.org", ""),
        ("http://0.0.0.0:8000", ""),
        ("http://127.0.0.1:8000", 'proxy = "http://example.org:3128"'),
    ],
)
def test_a_key_is_not_sent_where_others_can_read_it(home: Path, address: str, extra: str) -> None:
    text = f'[providers.one]\nkind = "openai"\nmodel = "m"\nbase_url = "{address}"\n{extra}\n'

    assert not load(home, text).providers["one"].has_key
    assert "must be https://" in problem(home, text + 'api_key_env = "EXAMPLE_KEY"')


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8000", "http://[::1]:8000/v1", "http://localhost:11434"]
)
def test_a_key_may_be_sent_to_this_machine(home: Path, address: str) -> None:
    text = f'kind = "openai"\nmodel = "m"\nbase_url = "{address}"\napi_key_env = "EXAMPLE_KEY"'

    assert provider(home, text).base_url == address


@pytest.mark.parametrize("name", ["default", '""', '"a b"', '"-a"', '"a\\nb"', f'"{"a" * 65}"'])
def test_bad_name_of_a_provider_is_refused(home: Path, name: str) -> None:
    assert "a name must be of letters" in problem(home, f"[providers.{name}]{ENOUGH}")


@pytest.mark.parametrize("text", ["providers = 1", "[providers]\none = 1", "[[providers]]\na = 1"])
def test_providers_are_tables(home: Path, text: str) -> None:
    assert problem(home, text).startswith("providers")


def test_names_of_providers_may_have_dots(home: Path) -> None:
    assert list(load(home, f'[providers."ollama.default"]{ENOUGH}').providers) == ["ollama.default"]


# ---- which one is meant


def test_the_only_provider_is_the_default(home: Path) -> None:
    assert load(home, f"[providers.one]{ENOUGH}").default_provider == "one"


def test_among_several_providers_nobody_guesses(home: Path) -> None:
    two = f"[providers.one]{ENOUGH}[providers.two]{ENOUGH}"

    assert load(home, f'default_provider = "two"\n{two}').default_provider == "two"
    assert problem(home, two) == "default_provider must name a provider, there are: one, two"
    assert "there are: one, two" in problem(home, f'default_provider = "three"\n{two}')


def test_a_default_provider_that_is_not_there_is_refused(home: Path) -> None:
    assert "there are: none" in problem(home, 'default_provider = "one"')


def test_the_usual_model_is_the_first_choice_and_stands_once(home: Path) -> None:
    found = provider(home, ENOUGH + 'models = ["large", "m"]')

    assert found.choices == ("m", "large")

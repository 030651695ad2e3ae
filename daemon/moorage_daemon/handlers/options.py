"""What can be chosen in a session: its mode, and its overrides as config options.

Both are the Agent Client Protocol's. All options are selects, which every client can show, and the
current value is always in the list: an exact value set by other means appears as one.
"""

from collections.abc import Mapping

import msgspec

from moorage_daemon.provider_settings import ProviderSettings
from moorage_protocol.acp import ConfigOption, SelectOption, SessionMode, SessionModes
from moorage_protocol.moorage import Overrides, Posture


DEFAULT = "default"
MODE = "mode"  # the option that is the session's mode
MODES = [
    SessionMode(
        id=Posture.ASK, name="Ask", description="Asks before it changes files or runs commands"
    ),
    SessionMode(
        id=Posture.AUTO_EDIT,
        name="Auto-edit",
        description="Edits files of the workspace unasked, asks before it runs commands",
    ),
    SessionMode(
        id=Posture.READ_ONLY, name="Read-only", description="Reads files, and does nothing else"
    ),
]
TEMPERATURES = ("0.0", "0.2", "0.5", "0.7", "1.0", "1.5", "2.0")


class Offered(msgspec.Struct, frozen=True):
    """The configured providers; `default` is meant where none is chosen, None if there are none."""

    providers: Mapping[str, ProviderSettings]
    default: str | None

    def models(self, provider: str | None) -> tuple[str, ...]:
        """The models to choose from when that provider is chosen."""
        settings = self.providers.get(provider or self.default or "")
        return settings.choices if settings is not None else ()


def session_modes(posture: Posture) -> SessionModes:
    """The modes, and the one a session is in."""
    return SessionModes(current_mode_id=posture, available_modes=MODES)


def config_options(posture: Posture, overrides: Overrides, offered: Offered) -> list[ConfigOption]:
    """All options of a session with their current values."""
    models, providers = offered.models(overrides.model_provider), tuple(offered.providers)
    temperature = None if overrides.temperature is None else str(overrides.temperature)
    return [
        _mode_option(posture),
        _option("model", "Model", "model", overrides.model, models),
        _option(
            "model_provider", "Model provider", "model_config", overrides.model_provider, providers
        ),
        _option("temperature", "Temperature", "model_config", temperature, TEMPERATURES),
    ]


def _mode_option(posture: Posture) -> ConfigOption:
    return ConfigOption(
        id=MODE,
        name="Mode",
        category="mode",
        current_value=posture,
        options=[
            SelectOption(value=mode.id, name=mode.name, description=mode.description)
            for mode in MODES
        ],
    )


def _option(
    name: str, title: str, category: str, value: str | None, choices: tuple[str, ...]
) -> ConfigOption:
    current = DEFAULT if value is None else value
    values = dict.fromkeys((DEFAULT, *choices, current))
    return ConfigOption(
        id=name,
        name=title,
        category=category,
        current_value=current,
        options=[SelectOption(value=choice, name=_shown(choice)) for choice in values],
    )


def _shown(choice: str) -> str:
    return "Default" if choice == DEFAULT else choice

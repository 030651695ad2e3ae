"""The settings of a session: its overrides, exact or as options to choose from, and its mode."""

from typing import Any

import msgspec
from msgspec import UNSET

from moorage_daemon.handlers.options import DEFAULT, MODE, Offered, config_options
from moorage_daemon.handlers.port import Answer, AtSeq, Desk, Peer
from moorage_daemon.identity import Verb
from moorage_daemon.session import Session
from moorage_protocol.acp import (
    ConfigOption,
    Empty,
    SessionParams,
    SetConfigOptionResult,
    SetModeParams,
)
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import (
    ConfigureParams,
    ConfigureResult,
    Overrides,
    OverridesPatch,
    Posture,
)


MAX_NAME = 200  # characters of a model or provider name
MAX_TEMPERATURE = 2.0


class SetConfigOptionParams(SessionParams, frozen=True):
    """Params of `session/set_config_option`; all our options are selects."""

    config_id: str
    value: str


def configure(desk: Desk, peer: Peer, params: ConfigureParams) -> Answer:
    """Change the overrides, all of them or none; answered when that is durable."""
    session = _find(desk, peer, params.session_id)
    applies = "next_turn" if session.is_busy else "now"
    seq, options = _apply(desk, peer, session, params.overrides)
    result = ConfigureResult(
        overrides=session.head.overrides, applies=applies, config_options=options
    )
    return AtSeq(session.log, seq, result)


def set_config_option(desk: Desk, peer: Peer, params: SetConfigOptionParams) -> Answer:
    """Choose a value of an option; answers with all options (Agent Client Protocol)."""
    session = _find(desk, peer, params.session_id)
    options = config_options(session.head.posture, session.head.overrides, desk.providers)
    option = next((option for option in options if option.id == params.config_id), None)
    if option is None:
        raise InvalidParams("Invalid params: configId")
    if params.value not in {choice.value for choice in option.options}:
        raise InvalidParams("Invalid params: value")
    if option.id == MODE:
        seq, now = _take_posture(desk, peer, session, Posture(params.value))
    else:
        seq, now = _apply(desk, peer, session, _as_patch(option.id, params.value))
    return AtSeq(session.log, seq, SetConfigOptionResult(config_options=now))


def set_mode(desk: Desk, peer: Peer, params: SetModeParams) -> Answer:
    """Choose the mode, which is an option as well; answered when that is durable."""
    session = _find(desk, peer, params.session_id)
    try:
        posture = Posture(params.mode_id)
    except ValueError:
        raise InvalidParams("Invalid params: modeId") from None
    seq, _ = _take_posture(desk, peer, session, posture)
    return AtSeq(session.log, seq, Empty())


def _take_posture(
    desk: Desk, peer: Peer, session: Session, posture: Posture
) -> tuple[int, list[ConfigOption]]:
    options = config_options(posture, session.head.overrides, desk.providers)
    return session.record.take_posture(posture, options, peer.identity.tui), options


def _as_patch(option: str, value: str) -> OverridesPatch:
    chosen: Any = None if value == DEFAULT else value
    if option == "temperature" and chosen is not None:
        chosen = float(value)
    return msgspec.structs.replace(OverridesPatch(), **{option: chosen})


def _find(desk: Desk, peer: Peer, session_id: str) -> Session:
    access = peer.access_to(session_id)
    return desk.sessions.find(session_id, peer.identity.principal, Verb.ACT, access)


def _apply(
    desk: Desk, peer: Peer, session: Session, patch: OverridesPatch
) -> tuple[int, list[ConfigOption]]:
    overrides = patched(session.head.overrides, patch, desk.providers)
    options = config_options(session.head.posture, overrides, desk.providers)
    return session.record.configure(overrides, options, peer.identity.tui), options


def patched(old: Overrides, patch: OverridesPatch, offered: Offered) -> Overrides:
    """The overrides after a patch; raises `InvalidParams` and changes nothing if it is invalid.

    A provider without a model clears the model, also the provider that is chosen already: who
    names one starts from what it offers.
    """
    _check_patch(patch, offered)
    changes = {
        name: value
        for name in patch.__struct_fields__
        if (value := getattr(patch, name)) is not UNSET
    }
    chosen = changes.get("model_provider", UNSET)
    if chosen is not UNSET and (chosen is not None or old.model_provider is not None):
        changes.setdefault("model", None)
    return msgspec.structs.replace(old, **changes)


def _check_patch(patch: OverridesPatch, offered: Offered) -> None:
    if isinstance(patch.model, str) and not 1 <= len(patch.model) <= MAX_NAME:
        raise InvalidParams(f"Invalid params: model must have 1 to {MAX_NAME} characters")
    if isinstance(patch.model_provider, str) and patch.model_provider not in offered.providers:
        raise InvalidParams("Invalid params: model_provider is not configured")
    if isinstance(patch.temperature, float) and not 0 <= patch.temperature <= MAX_TEMPERATURE:
        raise InvalidParams("Invalid params: temperature must be from 0 to 2")

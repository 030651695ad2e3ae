"""The editor's `initialize`, as it is said to each daemon that comes.

An editor that knows nothing of moorage is spoken for: the daemon is told that this is a relay, and
proved which TUI its editor is, so that an editor stays the same one over connections, over
restarts of the daemon and over its own. None of that reaches the editor. One that has advertised
moorage says for itself who it is; it only gets its identity carried on.
"""

import re
from typing import Protocol, cast

from moorage_clients.bridge.frames import Frame, encode
from moorage_clients.identity import Identity, IdentityFile


Members = dict[str, object]

_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")
MAX_NAME = 40  # characters of an editor's name that its file is called by


class Identities(Protocol):
    """Where editors' identities are kept, by the name each gives itself."""

    def read(self, name: str) -> Identity | None:
        """The one that was kept."""
        ...

    def keep(self, name: str, identity: Identity, instead_of: Identity | None) -> None:
        """Keep a new one."""
        ...


class IdentityFiles:
    """They are kept in a state directory, as those of other terminals.

    `where` tells the daemon that they are for from the one of that directory.
    """

    def __init__(self, state_dir: str, where: str = "") -> None:
        self._state_dir = state_dir
        self._prefix = f"acp-{where}-" if where else "acp-"

    def _file(self, name: str) -> IdentityFile:
        return IdentityFile.in_state_dir(self._state_dir, f"{self._prefix}{name}")

    def read(self, name: str) -> Identity | None:
        """The one that was kept."""
        return self._file(name).read()

    def keep(self, name: str, identity: Identity, instead_of: Identity | None) -> None:
        """Keep a new one. Where that cannot be, the editor is a new one at its next start."""
        try:
            self._file(name).keep(identity, instead_of)
        except OSError:
            return


class Hello:
    """What an editor said in `initialize`.

    `asked` is the id of the editor's own request until it is answered; from then on the same is
    said again on each connection, and the editor hears nothing of it.
    """

    def __init__(self, asked: str, params: Members, identities: Identities, instance: str) -> None:
        self.asked: str | None = asked
        self._params = params
        self._instance = instance
        self._identities = identities
        self._ours = _member(_member(params, "_meta"), "moorage")
        self._name = _name_in(params)
        self._kept = identities.read(self._name) if self.is_plain else None
        self._identity = self._kept

    @property
    def is_plain(self) -> bool:
        """Whether the editor has not advertised moorage."""
        return self._ours is None

    def request(self, request_id: str) -> bytes:
        """The request to begin a connection with."""
        ours: Members = {"instance": self._instance, **(self._ours or {"relay": True})}
        if self._identity is not None:
            ours |= {"tuiId": self._identity.tui_id, "tuiSecret": self._identity.tui_secret}
        meta = {**(_member(self._params, "_meta") or {}), "moorage": ours}
        params = {**self._params, "_meta": meta}
        return encode(id=request_id, method="initialize", params=params)

    def refused(self) -> bool:
        """The daemon says no; whether it may be asked once more, now without the identity.

        What one daemon has issued, one with another state directory does not know.
        """
        had, self._identity = self._identity, None
        return had is not None

    def welcomed(self, result: object) -> object:
        """The daemon's answer; gives what of it is for the editor."""
        if not isinstance(result, dict):
            return result
        told = cast("Members", result)
        meta = _member(told, "_meta") or {}
        self._remember(_member(meta, "moorage") or {})
        if not self.is_plain:
            return told
        rest = {name: value for name, value in meta.items() if name != "moorage"}
        kept = {name: value for name, value in told.items() if name != "_meta"}
        return {**kept, "_meta": rest} if rest else kept

    def _remember(self, ours: Members) -> None:
        tui, secret = ours.get("tuiId"), ours.get("tuiSecret")
        if not (isinstance(tui, str) and isinstance(secret, str)):
            return  # it has proved the one that we know
        self._identity = Identity(tui, secret)
        if self.is_plain:
            self._identities.keep(self._name, self._identity, self._kept)


def hello_of(frame: Frame, identities: Identities, instance: str) -> Hello | None:
    """The hello that a request is; None if it is malformed, which the daemon will say."""
    params = frame.value("params")
    if frame.method != "initialize" or frame.id is None or not isinstance(params, dict):
        return None
    return Hello(frame.id, cast("Members", params), identities, instance)


def _name_in(params: Members) -> str:
    """What the editor calls itself, as a file can be called."""
    name = (_member(params, "clientInfo") or {}).get("name")
    plain = _UNUSUAL.sub("-", name)[:MAX_NAME].strip("-.") if isinstance(name, str) else ""
    return plain or "editor"


def _member(value: object, name: str) -> Members | None:
    """The object that `value` holds under `name`; None if either is no object."""
    found = cast("Members", value).get(name) if isinstance(value, dict) else None
    return cast("Members", found) if isinstance(found, dict) else None

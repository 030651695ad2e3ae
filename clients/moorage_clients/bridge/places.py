"""Where an editor is in each session it follows: so much of the log it was sent.

A place is the number of the update that was passed on last. It is not the highest one: a load
tells the log from its beginning, and what comes after a cut goes on where that stood.
"""

from collections.abc import Iterator
from typing import cast

from moorage_clients.bridge.frames import Frame


MAX_SESSIONS = 1000  # that one editor has open; of more, those it has not used longest are let go

BEGIN = frozenset({"session/new", "session/fork"})
CURSOR_EXPIRED = -31010  # that part of the log was compacted

END = frozenset({
    "session/close",
    "session/delete",
    "session/kill",
    "_moorage/session/kill",
    "_moorage/session/detach",
})  # fmt: skip


class Place:
    """`seq` is None while it is not known; `load` is the id of a load that is not answered."""

    __slots__ = ("access", "is_replaying", "load", "seq")

    def __init__(self, seq: int | None = None) -> None:
        self.seq = seq
        self.access: object = None  # as the editor attached, if it did so itself
        self.load: str | None = None
        self.is_replaying = False  # of the load, the first update has come

    def told(self, seq: int) -> None:
        """An update was passed on."""
        if self.load is not None and (self.seq is None or seq <= self.seq):
            self.is_replaying = True
        self.seq = seq


class Places:
    """All sessions that one editor follows."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}

    def __iter__(self) -> Iterator[str]:
        return iter([*self._places])

    def __contains__(self, session: object) -> bool:
        return session in self._places

    def __getitem__(self, session: str) -> Place:
        return self._places[session]

    def of(self, session: str) -> Place:
        """The place in a session, which the editor uses just now."""
        place = self._places.pop(session, None) or Place()
        self._places[session] = place
        if len(self._places) > MAX_SESSIONS:
            del self._places[next(iter(self._places))]
        return place

    def forget(self, session: str) -> None:
        """The session is followed no longer."""
        self._places.pop(session, None)

    def told(self, session: str, seq: int) -> None:
        """An update was passed on."""
        place = self._places.get(session)
        if place is None:
            place = self.of(session)
        place.told(seq)

    def asked(self, request: Frame) -> None:
        """The editor's request is on its way."""
        if request.session is None or request.method not in ("session/load", "session/prompt"):
            return
        place = self.of(request.session)
        if request.method == "session/load" and place.load is None:
            place.load, place.is_replaying = request.id, False

    def answered(self, request: Frame, answer: Frame) -> None:
        """The daemon has answered a request of the editor's."""
        method, session = request.method, request.session
        if method == "session/load" and session in self:
            self._loaded(session or "", request, answer)
        elif answer.is_error:
            return
        elif method in BEGIN and answer.session is not None:
            self.of(answer.session).seq = 1 if answer.seq is None else answer.seq
        elif session is None:
            return
        elif method in END:
            self.forget(session)
        elif method == "session/resume":
            self._stands(self.of(session), answer.seq)
        elif method == "_moorage/session/attach":
            self._attached(self.of(session), request, answer)

    def _loaded(self, session: str, request: Frame, answer: Frame) -> None:
        place = self.of(session)
        if place.load == request.id:
            place.load = None
        if answer.is_error and place.seq is None:
            self.forget(session)
        elif not answer.is_error and answer.seq is not None:
            place.seq = max(place.seq or 0, answer.seq)

    def _attached(self, place: Place, request: Frame, answer: Frame) -> None:
        wish = request.value("params")
        params = cast("dict[str, object]", wish) if isinstance(wish, dict) else {}
        place.access = params.get("access")
        after = params.get("afterSeq")
        if isinstance(after, int) and place.seq is not None:
            place.seq = min(after, place.seq)  # on one connection it moves back, never forward
        else:
            self._stands(place, after if isinstance(after, int) else answer.seq)

    def _stands(self, place: Place, seq: int | None) -> None:
        if place.seq is None:
            place.seq = seq

    def to_go_on(self, session: str) -> dict[str, object]:
        """The params of an attach that goes on where the last connection stood."""
        place = self._places[session]
        params: dict[str, object] = {"sessionId": session, "continues": True}
        if place.seq is not None:
            params["afterSeq"] = place.seq
        if place.access is not None:
            params["access"] = place.access
        return params

    def returned(self, session: str, answer: Frame) -> bool:
        """An attach of ours was answered; False: that place is no more, ask for the present one.

        A session that is not there any more is let go.
        """
        place = self._places.get(session)
        if place is None:
            return True
        if not answer.is_error:
            self._stands(place, answer.seq)
            return True
        if place.seq is not None and answer.error_code == CURSOR_EXPIRED:
            place.seq = None
            return False
        self.forget(session)
        return True

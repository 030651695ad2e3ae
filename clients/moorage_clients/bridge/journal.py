"""What an editor said that a daemon may still have to be given, in the order it was said.

A request stays until it is answered, as the daemon that was given it may be gone before that; a
notification stays until it is sent. What stays is bounded, so that an editor without a daemon
fills no memory.
"""

from collections.abc import Iterator

from moorage_clients.bridge.frames import Frame, Kind


MAX_FRAMES = 1000  # that are kept to be sent, or sent again
MAX_BYTES = 16 * 2**20  # of them; two of the largest frames

# To be done twice would do harm, and whether it was done once is not known.
ONCE = frozenset({
    "_moorage/grant/close",
    "_moorage/grant/create",
    "_moorage/grant/raise",
    "_moorage/grant/use",
    "_moorage/grant/useBatch",
    "_moorage/token/add",
    "_moorage/token/rotate",
    "_session/steering",
})  # fmt: skip


class Held:
    """One frame. `is_cancelled`: the editor has taken a request back, its answer still counts."""

    __slots__ = ("frame", "is_cancelled", "was_sent")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.was_sent = False
        self.is_cancelled = False

    @property
    def may_be_repeated(self) -> bool:
        """Whether it does no harm to send it again. A prompt's id sees to it that it runs once."""
        frame = self.frame
        if not frame.data or frame.method in ONCE:
            return False
        return frame.method != "session/prompt" or "params._meta.moorage.promptId" in frame.found


class Journal:
    """Frames in their order, requests by their id."""

    def __init__(self) -> None:
        self._held: dict[str | int, Held] = {}
        self._frames = self._bytes = 0
        self._count = 0  # of all that were ever held: what has no id has a number

    def __bool__(self) -> bool:
        return bool(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter([*self._held.values()])

    @property
    def requests(self) -> list[str]:
        """The ids of the requests that are not answered."""
        return [key for key in self._held if isinstance(key, str)]

    def has_room(self, frame: Frame) -> bool:
        """Whether a frame can be kept."""
        return self._frames < MAX_FRAMES and self._bytes + len(frame.data) <= MAX_BYTES

    def hold(self, frame: Frame) -> Held:
        """Add a frame. Where there is no room for it, it can be answered, but not sent again."""
        held = Held(frame if self.has_room(frame) else frame._replace(data=b"", found={}))
        if held.frame.data:
            self._frames += 1
            self._bytes += len(frame.data)
        self._count += 1
        is_request = frame.kind is Kind.REQUEST and frame.id is not None
        key = frame.id if is_request and frame.id not in self._held else None
        self._held[self._count if key is None else key] = held
        return held

    def find(self, key: str | None) -> Held | None:
        """The open request of that id."""
        return None if key is None else self._held.get(key)

    def prompts_of(self, session: str | None) -> list[Held]:
        """The open prompts of a session."""
        return [
            held
            for held in self._held.values()
            if held.frame.method == "session/prompt" and held.frame.session == session
        ]

    def drop(self, held: Held) -> None:
        """It is answered, or sent and nothing more to come of it."""
        for key, found in self._held.items():
            if found is held:
                self._remove(key)
                return

    def answered(self, key: str | None) -> Held | None:
        """The request of that id has its answer; gives it."""
        held = self.find(key)
        if held is not None and key is not None:
            self._remove(key)
        return held

    def _remove(self, key: str | int) -> None:
        held = self._held.pop(key)
        if held.frame.data:
            self._frames -= 1
            self._bytes -= len(held.frame.data)

    def cut(self, unsent: list[Frame]) -> list[Held]:
        """The connection is gone and these cannot have been read; all else may have been.

        What was not read goes behind what was. Gives the requests that cannot be sent again: they
        are no longer held.
        """
        for frame in unsent:
            held = self.answered(frame.id) if frame.kind is Kind.REQUEST else None
            if held is not None or self.has_room(frame):
                again = self.hold(frame)
                again.is_cancelled = held is not None and held.is_cancelled
        lost = [held for held in self if held.was_sent and not held.may_be_repeated]
        for held in lost:
            self.drop(held)
        for held in self._held.values():
            held.was_sent = False
        return lost

    def abandon(self) -> list[str]:
        """Hold nothing more; gives the ids of the requests that were not answered."""
        requests = self.requests
        self._held.clear()
        self._frames = self._bytes = 0
        return requests

"""What an editor and the daemon owe each other, over any number of connections to the daemon.

An editor that loses its agent has no way back, so it must not lose it. When a connection ends,
open questions of the daemon are withdrawn, the terminals it used are let go of, and what the editor
has asked stays asked. The next connection begins with the editor's own `initialize`; then every
session is followed again from where it was, and only then the requests that are not answered are
sent again, in their order. A prompt has an id by which the daemon knows it again: it runs once, and
is answered behind what the editor has missed. Of all that the editor sees nothing but its updates
and answers.

No I/O happens here, and no time passes: frames come in, frames are put into the two outboxes.
"""

import json
from collections import deque
from collections.abc import Iterable
from enum import Enum, auto

from moorage_clients.bridge.frames import Frame, Kind, encode, read, with_ours
from moorage_clients.bridge.framing import Refused, Taken
from moorage_clients.bridge.hello import Hello, Identities, hello_of
from moorage_clients.bridge.journal import Held, Journal
from moorage_clients.bridge.outbox import Outbox
from moorage_clients.bridge.places import Places
from moorage_clients.bridge.terminals import Terminal, Terminals


INTERNAL_ERROR = -32603  # JSON-RPC 2.0, section 5.1; -32000 would open an editor's login screen
INVALID_REQUEST = -32600
STOPPING = "stopping"  # the word for it in an error's data

UNCERTAIN = "The moorage daemon went away before it answered: whether it was done is not known."
FULL = "No moorage daemon answers, and too many requests wait for one already."


class Phase(Enum):
    AWAY = auto()  # no connection
    GREETING = auto()  # the daemon was told who the editor is
    RETURNING = auto()  # sessions are being followed again
    READY = auto()  # all that comes passes at once


class Exchange:
    """One editor's conversation with whichever daemon there is.

    `instance` is a name that no other program has: of what is said here, the ids begin with it.
    """

    def __init__(self, identities: Identities, instance: str, places: Places | None = None) -> None:
        self.to_editor = Outbox()
        self.to_daemon = Outbox()
        self.phase = Phase.AWAY
        self._identities = identities
        self._instance = instance
        self._hello: Hello | None = None
        self._journal = Journal()
        self._places = Places() if places is None else places
        self._to_return: deque[str] = deque()  # sessions that are still to be followed again
        self._terminals = Terminals()  # of the editor, that the daemon uses
        self._asked: set[str] = set()  # requests of the daemon that the editor has not answered
        self._own: dict[str, str] = {}  # our own requests: the session each is about, or nothing
        self._count = 0

    # ---- what the relay goes by

    @property
    def is_ready(self) -> bool:
        """Whether there is a daemon that knows the editor and all of its sessions."""
        return self.phase is Phase.READY

    @property
    def wants_daemon(self) -> bool:
        """Whether something waits for one."""
        return not self.is_ready and self._has_open

    @property
    def is_settled(self) -> bool:
        """Whether everything that was said is delivered and answered."""
        return not (self._has_open or self.to_daemon or self.to_editor)

    @property
    def is_delivered(self) -> bool:
        """Whether the daemon has been given everything the editor said."""
        return (self.is_ready and not self.to_daemon) or not self._has_open

    @property
    def _has_open(self) -> bool:
        return bool(self._journal) or (self._hello is not None and self._hello.asked is not None)

    # ---- from the editor

    def from_editor(self, taken: Taken) -> None:
        """Take the editor's next frame."""
        if isinstance(taken, Refused):
            self._refuse("null", taken.problem, INVALID_REQUEST, "invalid_request")
            return
        frame = read(taken)
        match frame.kind:
            case Kind.RESPONSE:
                self._answer_question(frame)
            case Kind.REQUEST if self._hello is None and self._introduced(frame):
                pass
            case Kind.NOTIFICATION if self._has_cancelled(frame) and not self.is_ready:
                pass  # said again behind the request that it takes back
            case _:
                self._pass_on(self._identified(frame))

    def _answer_question(self, answer: Frame) -> None:
        is_awaited = answer.id in self._asked  # else it was withdrawn, or its daemon is gone
        made = self._terminals.made(answer, is_awaited=is_awaited)
        if answer.id is not None and is_awaited:
            self._asked.discard(answer.id)
            self.to_daemon.put(answer.data)
        elif made is not None:
            self._let_go([made])

    def _let_go(self, terminals: Iterable[Terminal]) -> None:
        """Have the editor end what runs there; what it answers goes nowhere."""
        for terminal in terminals:
            params = {"sessionId": terminal.session, "terminalId": terminal.id}
            for method in ("terminal/kill", "terminal/release"):
                request_id = f"{self._instance}:{self._next()}"
                self.to_editor.put(encode(id=request_id, method=method, params=params))

    def _introduced(self, frame: Frame) -> bool:
        """The editor says who it is; False where it says something else, or nothing sensible."""
        hello = hello_of(frame, self._identities, self._instance)
        if hello is None:
            return False
        self._hello = hello
        if self.phase is not Phase.AWAY:
            self._greet(hello)
        return True

    def _has_cancelled(self, frame: Frame) -> bool:
        """Note whether a notification takes a request back that is not answered."""
        if frame.method == "session/cancel":
            taken_back = self._journal.prompts_of(frame.session)
        elif frame.method == "$/cancel_request":
            found = self._journal.find(frame.cancels)
            taken_back = [found] if found is not None else []
        else:
            return False
        for held in taken_back:
            held.is_cancelled = True
        return bool(taken_back) or frame.method == "$/cancel_request"

    def _identified(self, frame: Frame) -> Frame:
        """A prompt with an id, by which the daemon knows it if it comes again."""
        if frame.method != "session/prompt" or frame.kind is not Kind.REQUEST:
            return frame
        return with_ours(frame, "promptId", f"{self._instance}-{self._next()}")

    def _pass_on(self, frame: Frame) -> None:
        if self.is_ready and frame.kind is not Kind.REQUEST:
            self.to_daemon.put(frame.data)
        elif self.is_ready:
            self._send(self._journal.hold(frame), frame.data)
        elif self._journal.has_room(frame):
            self._journal.hold(frame)
        elif frame.kind is Kind.REQUEST:
            self._refuse(frame.id, FULL)

    def _send(self, held: Held, data: bytes) -> None:
        """Send what is held; of what is no request nothing more is to come."""
        if held.frame.kind is Kind.REQUEST:
            self._places.asked(held.frame)
            held.was_sent = True
        else:
            self._journal.drop(held)
        self.to_daemon.put(data)
        if held.is_cancelled:
            self.to_daemon.put(_note("$/cancel_request", requestId=_plain(held.frame.id)))

    # ---- from the daemon

    def from_daemon(self, data: bytes) -> bool:
        """Take the daemon's next frame; False: it will not talk to this editor, so hang up."""
        frame = read(data)
        match frame.kind:
            case Kind.RESPONSE if frame.id in self._own:
                return self._own_answer(frame)
            case Kind.RESPONSE:
                if not self._answered(frame):
                    return True
            case Kind.REQUEST if frame.id is not None:
                self._asked.add(frame.id)
                self._terminals.asked(frame)
            case Kind.NOTIFICATION:
                if not self._is_for_editor(frame):
                    return True
            case _:
                pass
        self.to_editor.put(data)
        return True

    def _answered(self, answer: Frame) -> bool:
        """Note an answer; False if it says that this daemon is stopping: the next one is asked."""
        held = self._journal.find(answer.id)
        if held is None:
            return True
        if held.may_be_repeated and answer.error_kind == STOPPING:
            return False
        self._journal.answered(answer.id)
        self._places.answered(held.frame, answer)
        return True

    def _is_for_editor(self, frame: Frame) -> bool:
        """Note what a notification says; whether the editor can know what that is."""
        method, session = frame.method or "", frame.session
        if frame.cancels is not None:
            # A terminal that is made all the same the daemon has to know of, to let go of it.
            if not self._terminals.is_making(frame.cancels):
                self._asked.discard(frame.cancels)
        elif session is not None and method == "_moorage/session/detached":
            self._places.forget(session)
        elif session is not None and frame.seq is not None:
            self._places.told(session, frame.seq)
        is_plain = self._hello is None or self._hello.is_plain
        return not (is_plain and method.startswith("_moorage/"))

    # ---- our own requests

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _ask(self, about: str) -> str:
        """The id of a new request of ours."""
        request_id = f"{self._instance}:{self._next()}"
        self._own[json.dumps(request_id)] = about
        return request_id

    def _own_answer(self, answer: Frame) -> bool:
        session = self._own.pop(answer.id or "")
        if not session:
            return self._greeted(answer)
        if not self._places.returned(session, answer):
            self._attach(session)
        elif self.phase is Phase.RETURNING:
            self._return()
        return True

    def _greet(self, hello: Hello) -> None:
        self.phase = Phase.GREETING
        self.to_daemon.put(hello.request(self._ask("")))

    def _greeted(self, answer: Frame) -> bool:
        hello = self._hello
        if hello is None:
            return False
        if answer.is_error:
            return self._unwelcome(hello, answer)
        told = hello.welcomed(answer.value("result"))
        if hello.asked is not None:
            self.to_editor.put(encode(id=_plain(hello.asked), result=told))
            hello.asked = None
        self._to_return = deque(self._places)
        self.phase = Phase.RETURNING
        self._return()
        return True

    def _unwelcome(self, hello: Hello, answer: Frame) -> bool:
        if hello.refused():
            self._greet(hello)
            return True
        if hello.asked is None:
            return False
        self.to_editor.put(encode(id=_plain(hello.asked), error=answer.value("error")))
        self._hello = None
        self._begin()  # what waits is refused by the daemon, which knows why
        return True

    def _attach(self, session: str) -> None:
        params = self._places.to_go_on(session)
        request_id = self._ask(session)
        self.to_daemon.put(encode(id=request_id, method="_moorage/session/attach", params=params))

    def _return(self) -> None:
        """Follow the next session again: one at a time, as each answer brings more with it."""
        while self._to_return:
            session = self._to_return.popleft()
            if session not in self._places or self._is_brought_by_prompt(session):
                continue
            if not self._load_on(session):
                self._attach(session)
                return
        self._begin()

    def _is_brought_by_prompt(self, session: str) -> bool:
        """Nothing of it has come yet: a prompt that is sent again brings all there is for it."""
        has_begun = self._places[session].seq is not None
        return not has_begun and bool(self._journal.prompts_of(session))

    def _load_on(self, session: str) -> bool:
        """Send a load again that was cut, from where it was; False if there is none."""
        place = self._places[session]
        held = self._journal.find(place.load)
        if held is None or not held.frame.data:
            place.load = None
            return False
        data = held.frame.data
        if place.is_replaying:
            data = with_ours(held.frame, "afterSeq", place.seq).data
        self._send(held, data)
        return True

    def _begin(self) -> None:
        self.phase = Phase.READY
        for held in self._journal:
            if not held.was_sent:
                self._send(held, held.frame.data)

    # ---- connections

    def opened(self) -> None:
        """A connection stands; call `from_daemon` with what it brings, `lost` when it ends."""
        if self._hello is None:
            self._begin()
        else:
            self._greet(self._hello)

    def lost(self) -> None:
        """The connection is gone: withdraw what it asked, keep what it was asked."""
        unsent = [read(line) for line in self.to_daemon.take_back()]
        lost = self._journal.cut([frame for frame in unsent if self._is_editors(frame)])
        for held in lost:
            self._refuse(held.frame.id, UNCERTAIN)
        self.phase = Phase.AWAY
        self._own.clear()
        self._to_return.clear()
        for key in self._asked:
            self.to_editor.put(_note("$/cancel_request", requestId=_plain(key)))
        self._asked.clear()
        self._let_go(self._terminals.lost())

    def _is_editors(self, frame: Frame) -> bool:
        """Whether a frame that was not sent is still to be: the editor said it, and not twice."""
        match frame.kind:
            case Kind.REQUEST:
                return frame.id not in self._own
            case Kind.NOTIFICATION:
                return not self._has_cancelled(frame)
            case Kind.RESPONSE:
                return False  # to a question that is withdrawn
            case Kind.OTHER:
                return True

    def give_up(self, problem: str) -> None:
        """No daemon can be had in time: answer everything that waits for one. Only while away."""
        if self._hello is not None and self._hello.asked is not None:
            self._refuse(self._hello.asked, problem)
            self._hello = None
        for key in self._journal.abandon():
            self._refuse(key, problem)

    def _refuse(
        self, key: str | None, text: str, code: int = INTERNAL_ERROR, kind: str = "daemon_lost"
    ) -> None:
        data = {"code": kind, "retryable": code == INTERNAL_ERROR}
        error = {"code": code, "message": text, "data": data}
        self.to_editor.put(encode(id=_plain(key), error=error))


def _note(method: str, **params: object) -> bytes:
    return encode(method=method, params=params)


def _plain(key: str | None) -> object:
    """An id as Python has it."""
    return json.loads(key or "null")

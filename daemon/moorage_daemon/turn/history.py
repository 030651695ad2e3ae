"""What was said in a session so far: a view of its log, read from its end.

A turn that was cut or has failed counts with what there is of it: that is what its user saw. Only
so much is read as is wanted, however long the log is.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from moorage_daemon.agents.port import Exchange
from moorage_daemon.log.log import MAX_PIECE
from moorage_daemon.store.model import Entry, Kind
from moorage_daemon.store.port import Store, StoreError
from moorage_daemon.turn.words import text_of
from moorage_protocol import lenient
from moorage_protocol.acp import AgentMessageChunk, AgentThoughtChunk, UserMessageChunk
from moorage_protocol.errors import InvalidParams, StorageError


WINDOW = 256  # entries looked through at once; twice as many where nothing was said
MAX_WINDOW = 4096
LEFT_OUT = "[…]"

_MESSAGES = frozenset({Kind.MESSAGE})


class History(msgspec.Struct, frozen=True):
    """The exchanges of one session."""

    store: Store
    session_id: str

    async def before(self, generation: int, seq: int, characters: int) -> list[Exchange]:
        """The exchanges of turns before `generation`, whose entries end at `seq`, oldest first.

        The newest that fit into so many characters; of the very last one its end, if it alone is
        longer. Raises `StorageError`.
        """
        if generation <= 1 or characters <= 0:
            return []
        pieces: list[_Piece] = []
        size, window = 0, WINDOW
        while seq > 0 and size <= characters:
            start = max(0, seq - window)
            earlier = await self._pieces(start, seq, generation, characters)
            pieces = [*earlier, *pieces]
            size += sum(len(piece.text) for piece in earlier)
            window = window if earlier else min(2 * window, MAX_WINDOW)
            seq = start
        return _fitting(_exchanges(pieces), characters)

    async def _pieces(
        self, after: int, end: int, generation: int, characters: int
    ) -> "deque[_Piece]":
        """The last pieces of text in those entries: all, or more than so many characters."""
        pieces: deque[_Piece] = deque()
        size, more = 0, True
        while more:
            try:
                page = await self.store.entries(self.session_id, after, kinds=_MESSAGES)
            except StoreError as error:
                raise StorageError from error
            for entry in page.entries:
                after = entry.seq
                piece = _piece(entry, generation) if entry.seq <= end else None
                if piece is not None:
                    pieces.append(piece)
                    size += len(piece.text)
                while pieces and size - len(pieces[0].text) > characters:
                    size -= len(pieces.popleft().text)
            more = page.more and after < end
        return pieces


class _Piece(msgspec.Struct, frozen=True):
    """A piece of a turn's text; pieces of one message belong together."""

    generation: int
    is_answer: bool
    message: str | None
    text: str


class _Told(msgspec.Struct, frozen=True):
    chunk: UserMessageChunk | AgentMessageChunk | AgentThoughtChunk


def _piece(entry: Entry, generation: int) -> _Piece | None:
    """What an entry says to a model; None for later ones, reasoning, and what is not known."""
    if entry.generation is None or entry.generation >= generation:
        return None
    try:
        chunk = lenient.decode(b'{"chunk":%b}' % entry.body, _Told).chunk
        text = text_of(chunk.content)
    except InvalidParams:  # of a newer version
        return None
    if isinstance(chunk, AgentThoughtChunk):
        return None
    is_answer = isinstance(chunk, AgentMessageChunk)
    return _Piece(entry.generation, is_answer, chunk.message_id, text)


def _exchanges(pieces: Iterable[_Piece]) -> list[Exchange]:
    turns: dict[int, tuple[list[_Piece], list[_Piece]]] = {}
    for piece in pieces:
        turns.setdefault(piece.generation, ([], []))[piece.is_answer].append(piece)
    return [Exchange(_prompt(said), _answer(told)) for said, told in turns.values()]


def _prompt(pieces: list[_Piece]) -> str:
    """Blocks line by line; a piece of full length was cut for its length, not for its meaning."""
    ends = ("" if len(piece.text) == MAX_PIECE else "\n" for piece in pieces)
    return "".join(piece.text + end for piece, end in zip(pieces, ends, strict=True)).strip()


def _answer(pieces: list[_Piece]) -> str:
    text = ""
    for index, piece in enumerate(pieces):
        is_new = index > 0 and pieces[index - 1].message != piece.message
        text += f"\n\n{piece.text}" if is_new else piece.text
    return text


def _fitting(exchanges: list[Exchange], characters: int) -> list[Exchange]:
    """The newest of them that fit."""
    fitting: deque[Exchange] = deque()
    for exchange in reversed(exchanges):
        characters -= len(exchange.prompt) + len(exchange.answer)
        if characters < 0:
            if not fitting:
                room = characters + len(exchange.prompt) + len(exchange.answer)
                fitting.append(_shortened(exchange, room))
            break
        fitting.appendleft(exchange)
    return list(fitting)


def _shortened(exchange: Exchange, characters: int) -> Exchange:
    """The ends of what was asked and answered; of the question at most half of the room."""
    answer_room = max(characters - len(exchange.prompt), characters // 2)
    answer = _end(exchange.answer, answer_room)
    return Exchange(_end(exchange.prompt, characters - len(answer)) or LEFT_OUT, answer)


def _end(text: str, characters: int) -> str:
    """The text, or its end behind a mark; within so many characters, and the mark's."""
    if len(text) <= characters:
        return text
    return LEFT_OUT + text[len(text) - max(characters, 0) :]

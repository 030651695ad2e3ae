"""What was said in a session so far: a view of its log, read from its end.

A turn that was cut or has failed counts with what there is of it: that is what its user saw. Only
so much is read as is wanted, however long the log is. Where a summary stands for the first turns
they are not read at all, and it is told before the others. Turns that were removed, and for which
nothing stands, are told of as that.
"""

import logging
from collections import deque
from collections.abc import Iterable

import msgspec

from moorage_daemon.agents.port import Exchange, Past
from moorage_daemon.log.log import MAX_PIECE
from moorage_daemon.store.model import CompactionBody, Entry, Kind, UnreadableBody, read_body
from moorage_daemon.store.port import Page, Store, StoreError
from moorage_daemon.turn.words import text_of
from moorage_protocol import lenient
from moorage_protocol.acp import AgentMessageChunk, AgentThoughtChunk, UserMessageChunk
from moorage_protocol.errors import InvalidParams, StorageError


logger = logging.getLogger(__name__)

WINDOW = 256  # entries looked through at once; twice as many where nothing was said
MAX_WINDOW = 4096
LEFT_OUT = "[…]"

_MESSAGES = frozenset({Kind.MESSAGE})
_PROMPTS = frozenset({Kind.PROMPT})
_COMPACTIONS = frozenset({Kind.COMPACTION})


class History(msgspec.Struct, frozen=True):
    """The exchanges of one session."""

    store: Store
    session_id: str

    async def before(self, generation: int, seq: int, characters: int, compacted: int = 0) -> Past:
        """What was said in the turns before `generation`, whose entries end at `seq`.

        The newest that fit into so many characters; of the very last one its end, if it alone is
        longer. The summary of entry `compacted` comes first, and as much of it as fits. Raises
        `StorageError`.
        """
        if generation <= 1 or characters <= 0:
            return Past(is_whole=generation <= 1)
        summary = await self._summary(compacted)
        said, upto = (summary.summary or "", summary.upto) if summary is not None else ("", 0)
        room = characters - len(said)
        pieces: list[_Piece] = []
        size, window, is_read = 0, WINDOW, False
        while seq > 0 and size <= room and not is_read:
            start = max(0, seq - window)
            earlier, is_read = await self._pieces(start, seq, range(upto + 1, generation), room)
            pieces = [*earlier, *pieces]
            size += sum(len(piece.text) for piece in earlier)
            window = window if earlier else min(2 * window, MAX_WINDOW)
            seq = start
        if room <= 0:
            return Past((), _end(said, characters), upto, is_whole=size == 0 <= room)
        exchanges = _exchanges(pieces)
        fitting = _fitting(exchanges, room)
        is_whole = size <= room and fitting == exchanges
        first = exchanges[0].generation if exchanges else generation
        is_cut = is_whole and first > upto + 1 and await self._begins_after(upto + 1)
        return Past(fitting, said, upto, is_whole=is_whole, is_cut=is_cut)

    async def _begins_after(self, generation: int) -> bool:
        """Whether that turn and those before are not kept any more; one may have said nothing."""
        page = await self._page(0, _PROMPTS, limit=1)
        return any((entry.generation or 0) > generation for entry in page.entries)

    async def _summary(self, seq: int) -> CompactionBody | None:
        """What entry `seq` says of the turns before it; None if it is not there any more."""
        if not seq:
            return None
        page = await self._page(seq - 1, _COMPACTIONS, limit=1)
        for entry in page.entries:
            try:
                return read_body(entry, CompactionBody) if entry.seq == seq else None
            except UnreadableBody:
                logger.exception("a summary cannot be read: the turns themselves are told")
        return None

    async def _page(self, after: int, kinds: frozenset[str], limit: int = 500) -> Page:
        try:
            return await self.store.entries(self.session_id, after, limit=limit, kinds=kinds)
        except StoreError as error:
            raise StorageError from error

    async def _pieces(
        self, after: int, end: int, generations: range, characters: int
    ) -> "tuple[deque[_Piece], bool]":
        """The last pieces of text in those entries: all, or more than so many characters.

        With it whether a turn before the first of the generations was seen.
        """
        pieces: deque[_Piece] = deque()
        size, more, is_read = 0, True, False
        while more:
            page = await self._page(after, _MESSAGES)
            for entry in page.entries:
                after = entry.seq
                if after > end:
                    break
                is_read = is_read or (entry.generation or generations.start) < generations.start
                piece = _piece(entry) if entry.generation in generations else None
                if piece is not None:
                    pieces.append(piece)
                    size += len(piece.text)
                while pieces and size - len(pieces[0].text) > characters:
                    size -= len(pieces.popleft().text)
            more = page.more and after < end
        return pieces, is_read


class _Piece(msgspec.Struct, frozen=True):
    """A piece of a turn's text; pieces of one message belong together."""

    generation: int
    is_answer: bool
    message: str | None
    text: str


class _Told(msgspec.Struct, frozen=True):
    chunk: UserMessageChunk | AgentMessageChunk | AgentThoughtChunk


def _piece(entry: Entry) -> _Piece | None:
    """What an entry says to a model; None for reasoning, and what is not known."""
    assert entry.generation is not None
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
    return [Exchange(_prompt(said), _answer(told), turn) for turn, (said, told) in turns.items()]


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
        characters -= exchange.size
        if characters < 0:
            if not fitting:
                fitting.append(_shortened(exchange, characters + exchange.size))
            break
        fitting.appendleft(exchange)
    return list(fitting)


def _shortened(exchange: Exchange, characters: int) -> Exchange:
    """The ends of what was asked and answered; of the question at most half of the room."""
    answer_room = max(characters - len(exchange.prompt), characters // 2)
    answer = _end(exchange.answer, answer_room)
    prompt = _end(exchange.prompt, characters - len(answer)) or LEFT_OUT
    return Exchange(prompt, answer, exchange.generation)


def _end(text: str, characters: int) -> str:
    """The text, or its end behind a mark; within so many characters, and the mark's."""
    if len(text) <= characters:
        return text
    return LEFT_OUT + text[len(text) - max(characters, 0) :]

"""Turns as a client asks for them: prompt, cancel, withdraw, and their records."""

import msgspec
from msgspec import UNSET, UnsetType

from moorage_daemon.admission import Admission, Known
from moorage_daemon.handlers.cancelling import cancelled, withdrawn
from moorage_daemon.handlers.port import Answer, AtSeq, Desk, Later, Now, OnVerdict, Peer
from moorage_daemon.identity import Verb
from moorage_daemon.log.records import turn_records
from moorage_daemon.session import Session
from moorage_daemon.store.model import Kind, VerdictBody
from moorage_daemon.turn.shown import as_shown, must_not_be_in, read_prompt
from moorage_protocol import lenient
from moorage_protocol.acp import (
    Empty,
    Meta,
    SessionParams,
    Shape,
    StopReason,
    Usage,
)
from moorage_protocol.errors import InvalidParams, RpcError, StorageError, TurnFailed
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import (
    Access,
    CancelMeta,
    CancelParams,
    Outcome,
    PromptMeta,
    PromptResult,
    PromptVerdict,
    TokenUsage,
    TurnRecord,
    TurnsParams,
    TurnsResult,
    WithdrawParams,
    WithdrawResult,
)


MAX_META = 16 * 2**10  # bytes of what others attach to a prompt
MAX_PROMPT_ID = 128  # characters; a UUID has 36
MAX_TURN_SECONDS = 7 * 86400.0  # a longer limit is a mistake of unit
PAGE_LIMIT = 1000  # turns in one answer
PAGE_BYTES = 512 * 2**10  # of records: the answer stays under 1 MiB


class PromptRequest(SessionParams, frozen=True):
    """A prompt with `_meta` as it came: not all that is in there is ours."""

    prompt: list[msgspec.Raw]
    meta: msgspec.Raw | UnsetType = msgspec.field(name="_meta", default=UNSET)


class _PromptMeta(PromptMeta, frozen=True):
    """Ours in a prompt, and a mark that belongs to a block: ignored it would give a secret away."""

    secret: msgspec.Raw | UnsetType = UNSET


class _Wish(Shape, frozen=True):
    meta: Meta[_PromptMeta] = msgspec.field(name="_meta", default=Meta[_PromptMeta]())


def prompt(desk: Desk, peer: Peer, params: PromptRequest) -> Answer:
    """Admit a prompt in the order it came; answered behind the verdict of its turn.

    Sent again, it brings a client that does not follow the session all of its turn once more.
    """
    session = _find(desk, peer, params)
    wish = _wish(params.meta)
    read = read_prompt(params.prompt, foreign_meta(params.meta))
    must_not_be_in(wish.prompt_id or "", read.secrets)
    found = session.admit(
        Admission(
            shown=as_shown(params.prompt, read),
            prompt=read,
            by=peer.identity.tui,
            origin=peer.identity.origin,
            client=peer.lends_to(session.id),
            prompt_id=wish.prompt_id,
            on_busy=wish.on_busy,
            limit=wish.timeout_seconds or 0.0,
        )
    )
    if peer.access_to(session.id) is None:
        peer.attach(session, found.admitted_at - 1, Access.CONTROLLER, continues=True)
    if isinstance(found, Known):
        return Later(lambda: _answer_again(session, found), certain=True)
    return OnVerdict(session, found)


def _find(desk: Desk, peer: Peer, params: SessionParams) -> Session:
    access = peer.access_to(params.session_id)
    return desk.sessions.find(params.session_id, peer.identity.principal, Verb.ACT, access)


def _wish(meta: msgspec.Raw | UnsetType) -> PromptMeta:
    """What is ours in `_meta`; raises `InvalidParams`."""
    given = b"{}" if meta is UNSET else b'{"_meta":%b}' % bytes(meta)
    found = lenient.decode(given, _Wish).meta.moorage
    wish = found if isinstance(found, _PromptMeta) else _PromptMeta()
    _check_wish(wish)
    return wish


def foreign_meta(meta: msgspec.Raw | UnsetType) -> msgspec.Raw | None:
    """What is not ours in `_meta`, to be kept and passed on; None if it is nothing, or too much."""
    if meta is UNSET or len(bytes(meta)) > MAX_META:
        return None
    try:
        keys = msgspec.json.decode(meta, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return None
    keys.pop("moorage", None)
    return msgspec.Raw(encode(keys)) if keys else None


def _check_wish(wish: _PromptMeta) -> None:
    if wish.secret is not UNSET:
        raise InvalidParams("Invalid params: secret is for the blocks of a prompt, one by one")
    if wish.prompt_id is not None and not 1 <= len(wish.prompt_id) <= MAX_PROMPT_ID:
        raise InvalidParams(f"Invalid params: promptId must have 1 to {MAX_PROMPT_ID} characters")
    seconds = wish.timeout_seconds
    if seconds is not None and not 0 < seconds <= MAX_TURN_SECONDS:
        raise InvalidParams("Invalid params: timeoutSeconds must be above 0, at most a week")


# ---- the answer to a prompt


def prompt_answer(verdict: VerdictBody, generation: int) -> PromptResult | RpcError:
    """What a prompt is answered when its turn ended so."""
    if verdict.outcome is Outcome.FAILED:
        if verdict.code == "storage":
            return StorageError()
        return TurnFailed(kind=verdict.code)
    told = PromptVerdict(
        generation=generation,
        outcome=verdict.outcome,
        cause=verdict.cause,
        also_requested=verdict.also_requested,
        cancel_lost=verdict.cancel_lost,
        stop=verdict.stop,
    )
    reason = verdict.stop_reason or StopReason.END_TURN
    usage = _usage(verdict.usage) if verdict.usage is not None else UNSET
    return PromptResult(stop_reason=reason, usage=usage, meta=Meta(moorage=told))


def _usage(usage: TokenUsage) -> Usage:
    return Usage(
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        thought_tokens=usage.reasoning_tokens,
        cached_read_tokens=usage.cache_read_tokens,
        cached_write_tokens=usage.cache_write_tokens,
    )


async def _answer_again(session: Session, known: Known) -> AtSeq:
    """The answer that a known prompt got, from the verdict in the log.

    It says why the turn ended to every client: one that lost its connection has no other way to
    know.
    """
    await session.log.until(session.log.seq)
    after = known.admitted_at
    while True:
        page = await session.around.store.entries(session.id, after, kinds=_VERDICTS)
        for entry in page.entries:
            if entry.generation == known.generation:
                verdict = msgspec.json.decode(entry.body, type=VerdictBody)
                answer = prompt_answer(verdict, known.generation)
                return AtSeq(session.log, entry.seq, answer)
            after = entry.seq
        if not page.more:
            raise StorageError


_VERDICTS = frozenset({Kind.VERDICT})


# ---- cancel and withdraw


def cancel(desk: Desk, peer: Peer, params: CancelParams) -> Answer:
    """Stop turns; as a notification it is the same without an answer."""
    session = _find(desk, peer, params)
    wish = params.meta.moorage if isinstance(params.meta.moorage, CancelMeta) else None
    result = cancelled(session, wish, peer.identity.tui, peer.identity.origin)
    return Now(result if peer.identity.advertised else Empty())


def withdraw(desk: Desk, peer: Peer, params: WithdrawParams) -> Answer:
    """Take a waiting prompt back; false when it runs already or is over."""
    session = _find(desk, peer, params)
    was_taken = withdrawn(session, params.generation, peer.identity.tui)
    return Now(WithdrawResult(withdrawn=was_taken))


# ---- records


def turns(desk: Desk, peer: Peer, params: TurnsParams) -> Answer:
    """The records of turns with `generation > after`, in order."""
    session = desk.sessions.find(
        params.session_id, peer.identity.principal, Verb.WATCH, killed=True
    )
    if params.after < 0 or not 1 <= params.limit <= PAGE_LIMIT:
        raise InvalidParams(f"Invalid params: limit must be from 1 to {PAGE_LIMIT}")
    return Later(lambda: _records(session, params))


async def _records(session: Session, params: TurnsParams) -> TurnsResult:
    store = session.around.store
    records = await turn_records(store, session.id, after=params.after, limit=params.limit + 1)
    shown: list[TurnRecord] = []
    room = PAGE_BYTES
    for record in records[: params.limit]:
        room -= len(msgspec.json.encode(record))
        if room < 0 and shown:
            break
        shown.append(record)
    more = len(shown) < len(records)
    return TurnsResult(turns=shown, next=shown[-1].generation if more else None)

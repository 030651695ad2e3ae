"""A prompt that asks to become a turn, and how it is known again when it is sent once more."""

import hashlib

import msgspec

from moorage_daemon.agents.port import Prompt
from moorage_daemon.store.model import Head, PromptRef
from moorage_daemon.tools.client import Client
from moorage_daemon.turn.shown import Shown
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import OnBusy


EXCERPT = 1000  # characters of a prompt kept in its admission
TITLE = 80  # characters of a title made from a prompt
REMEMBERED_PROMPTS = 32  # prompt ids a session knows again beside those not yet answered


class Admission(msgspec.Struct, frozen=True):
    """A prompt that asks to become a turn.

    `prompt` is for the agent, `shown` what is kept of it. `limit` is seconds; `client` is who may
    lend the turn files and terminals.
    """

    shown: Shown
    prompt: Prompt
    by: str
    origin: str
    client: Client | None = None
    prompt_id: str | None = None
    on_busy: OnBusy = OnBusy.QUEUE
    limit: float = 0.0

    @property
    def excerpt(self) -> str:
        """Enough of it to recognise it in a list."""
        return self.shown.text[:EXCERPT]

    @property
    def title(self) -> str | None:
        """What a session that begins with it is called."""
        line = " ".join(self.shown.text.split())
        return line if len(line) <= TITLE else line[: TITLE - 1] + "…"

    @property
    def digest(self) -> str:
        """What two prompts have in common when they are the same prompt, but for their secrets:
        those could be guessed by whoever reads what is stored."""
        blocks = b"\n".join(bytes(block) for block in self.shown.content)
        return hashlib.sha256(blocks).hexdigest()[:32]


class OtherPrompt(InvalidParams):
    """A prompt id stands for another prompt."""

    summary = "Invalid params: promptId was used for another prompt"


class Known(msgspec.Struct, frozen=True):
    """A prompt id was used before, for the turn `generation`, which has ended."""

    generation: int
    admitted_at: int


def remembered(head: Head, admission: Admission) -> PromptRef | None:
    """The turn that the prompt id names; raises `OtherPrompt` if that was another."""
    if admission.prompt_id is None:
        return None
    for ref in head.prompts:
        if ref.prompt_id == admission.prompt_id:
            if ref.digest != admission.digest:
                raise OtherPrompt
            return ref
    return None


def remembering(
    head: Head, admission: Admission, generation: int, seq: int
) -> tuple[PromptRef, ...]:
    """The prompt ids to know again: those of open turns, and the last others.

    `seq` is the entry of the admission.
    """
    refs = head.prompts
    if admission.prompt_id is not None:
        refs = (*refs, PromptRef(admission.prompt_id, admission.digest, generation, seq))
    old = refs[:-REMEMBERED_PROMPTS]
    kept = tuple(ref for ref in old if ref.generation in head.open_turns)
    return (*kept, *refs[-REMEMBERED_PROMPTS:])

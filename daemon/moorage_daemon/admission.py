"""A prompt that asks to become a turn, and how it is known again when it is sent once more."""

import hashlib

import msgspec

from moorage_daemon.agents.port import Prompt
from moorage_daemon.store.model import Head, PromptRef
from moorage_daemon.tools.client import Client
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import OnBusy


EXCERPT = 1000  # characters of a prompt kept in its admission
TITLE = 80  # characters of a title made from a prompt
REMEMBERED_PROMPTS = 32  # prompt ids a session knows again beside those not yet answered


class Admission(msgspec.Struct, frozen=True):
    """A prompt that asks to become a turn.

    `content` are its blocks as they came, `prompt` what they mean. `limit` is seconds; `client` is
    who may lend the turn files and terminals.
    """

    content: list[msgspec.Raw]
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
        return self.prompt.text[:EXCERPT]

    @property
    def title(self) -> str | None:
        """What a session that begins with it is called."""
        line = " ".join(self.prompt.text.split())
        return line if len(line) <= TITLE else line[: TITLE - 1] + "…"

    @property
    def digest(self) -> str:
        """What two prompts have in common when they are the same prompt."""
        return hashlib.sha256(b"\n".join(bytes(block) for block in self.content)).hexdigest()[:32]


class Known(msgspec.Struct, frozen=True):
    """A prompt id was used before, for the turn `generation`, which has ended."""

    generation: int
    admitted_at: int


def remembered(head: Head, admission: Admission) -> PromptRef | None:
    """The turn that the prompt id names; raises `InvalidParams` if that was another prompt's."""
    if admission.prompt_id is None:
        return None
    for ref in head.prompts:
        if ref.prompt_id == admission.prompt_id:
            if ref.digest != admission.digest:
                raise InvalidParams("Invalid params: promptId was used for another prompt")
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

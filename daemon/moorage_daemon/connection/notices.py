"""What a plain client is told beside the log, as it is of no use later: no history has it."""

from moorage_daemon.log.render import snapshot_message
from moorage_protocol.acp import AgentMessageChunk, ClientCapabilities, Notice, Text


PAUSED = "The session is paused"
UNTIL = "This prompt waits until it is resumed: moorage resume {session}"


def pause_message(session: str, generation: int, capabilities: ClientCapabilities) -> bytes:
    """That a prompt waits for its session to be resumed.

    A notice where the client shows those, else a message of the agent (Agent Client Protocol,
    session notices): an editor that shows nothing looks as if it had hung.
    """
    until = UNTIL.format(session=session)
    if capabilities.session.notices is not None:
        notice = Notice(severity="warning", title=PAUSED, description=until)
        return snapshot_message(session, notice)
    text = Text(text=f"{PAUSED}. {until}\n")
    return snapshot_message(
        session, AgentMessageChunk(content=text, message_id=f"{generation}-paused")
    )

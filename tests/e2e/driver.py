"""An editor made of the Agent Client Protocol's own Python SDK, driven line by line.

It runs as a process of its own, as that SDK needs asyncio and the project's tests run on trio.
Every line of standard input is one thing to do, every line of standard output one thing that
happened:

    {"id": 1, "do": "new_session", "with": {"cwd": "/"}}     call that method of the SDK
    {"id": 2, "do": "request", "with": {"method": …, "params": …}}     send a request as it is
    {"answer": "CALL", "option": "ID"}     answer the question about a tool call; null: cancelled

    {"id": 1, "result": {…}}, {"id": 1, "error": {"code": …, "message": …, "data": …}}
    {"heard": {…}, "model": "SessionNotification", "problem": null}     any message that arrived,
        and what the SDK's models make of it
    {"shown": {…}}     an update that the SDK handed to the editor
    {"asked": "CALL"}     a question that the SDK handed to the editor
    {"lent": "read_text_file", "path": "…"}     what it lent: files of the disk, and terminals
    {"said": "…"}     bytes on the standard output of the agent that are no message
    {"left": 0, "stderr": "…"}     how the agent's process ended, once standard input has
"""

# ruff: noqa: TID251 - the SDK that is tried here is an asyncio program
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path
from typing import Any

import acp
from acp import schema
from acp.client import ClientSideConnection
from acp.connection import StreamDirection, StreamEvent
from acp.transports import spawn_stdio_transport
from acp.ws import create_websocket_stream
from pydantic import BaseModel, ValidationError


Json = dict[str, Any]
Value = dict[str, "Value"] | list["Value"] | str | float | bool | None

LIMIT = 2**26  # bytes of a line


class Nothing(BaseModel):
    """The answer to a notification that was sent as a request."""


RESULTS: dict[str, type[BaseModel]] = {
    "initialize": schema.InitializeResponse,
    "session/new": schema.NewSessionResponse,
    "session/load": schema.LoadSessionResponse,
    "session/resume": schema.ResumeSessionResponse,
    "session/list": schema.ListSessionsResponse,
    "session/prompt": schema.PromptResponse,
    "session/delete": schema.DeleteSessionResponse,
    "session/cancel": Nothing,
    "session/set_mode": schema.SetSessionModeResponse,
    "session/set_config_option": schema.SetSessionConfigOptionResponse,
}
CALLS: dict[str, type[BaseModel]] = {
    "session/update": schema.SessionNotification,
    "session/request_permission": schema.RequestPermissionRequest,
    "fs/read_text_file": schema.ReadTextFileRequest,
    "fs/write_text_file": schema.WriteTextFileRequest,
    "terminal/create": schema.CreateTerminalRequest,
    "terminal/output": schema.TerminalOutputRequest,
    "terminal/wait_for_exit": schema.WaitForTerminalExitRequest,
    "terminal/kill": schema.KillTerminalRequest,
    "terminal/release": schema.ReleaseTerminalRequest,
    "$/cancel_request": schema.CancelRequestNotification,
}


# What the protocol has got since the SDK's schema was made.
NEWER = {
    "update.name",
    "toolCall.name",
    "agentCapabilities.sessionCapabilities.archive",
    "agentCapabilities.sessionCapabilities.status",
    "agentCapabilities.sessionCapabilities.title",
}


def tell(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Judge:
    """Holds every message of the agent against the SDK's models."""

    def __init__(self) -> None:
        self._asked: dict[object, str] = {}

    def __call__(self, event: StreamEvent) -> None:
        message = event.message
        if event.direction is StreamDirection.OUTGOING:
            if "method" in message and "id" in message:
                self._asked[message["id"]] = message["method"]
            return
        model, payload = self._shape(message)
        problem = None if model is None else objection(model, payload)
        tell(heard=message, model=model and model.__name__, problem=problem)

    def _shape(self, message: Json) -> tuple[type[BaseModel] | None, Any]:
        if "method" in message:
            return CALLS.get(message["method"]), message.get("params")
        method = self._asked.pop(message.get("id"), "")
        if "error" in message:
            return schema.Error, message["error"]
        return RESULTS.get(method), message.get("result")


def objection(model: type[BaseModel], payload: Any) -> str | None:
    """What is wrong with a payload. The models forgive; so what they kept has to be all of it."""
    try:
        kept = model.model_validate(payload).model_dump(
            mode="json", by_alias=True, exclude_unset=True
        )
    except ValidationError as error:
        return str(error)
    lost = set(differences(payload, kept)) - NEWER
    return f"not kept: {sorted(lost)}" if lost else None


def differences(sent: Value, kept: Value, path: str = "") -> Iterator[str]:
    """Where two values differ."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key in {*sent, *kept}:
            where = f"{path}.{key}".lstrip(".")
            if key in sent and key in kept:
                yield from differences(sent[key], kept[key], where)
            else:
                yield where
    elif isinstance(sent, list) and isinstance(kept, list):
        for one, other in zip_longest(sent, kept):
            yield from differences(one, other, f"{path}[]")
    elif sent != kept:
        yield path


class Editor:
    """The SDK's client: shows what it is told, and waits for answers to what it is asked."""

    def __init__(self) -> None:
        self.answers: dict[str, asyncio.Future[str | None]] = {}
        self.terminals: dict[str, tuple[asyncio.subprocess.Process, bytearray]] = {}

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        shown = update.model_dump(mode="json", by_alias=True, exclude_none=True)
        tell(shown={"sessionId": session_id, "update": shown})

    async def request_permission(
        self, session_id: str, tool_call: Any, options: list[Any], **_: Any
    ) -> schema.RequestPermissionResponse:
        call: str = tool_call.tool_call_id
        self.answers[call] = asyncio.get_running_loop().create_future()
        tell(asked=call)
        option = await self.answers[call]
        outcome = (
            schema.DeniedOutcome(outcome="cancelled")
            if option is None
            else schema.AllowedOutcome(outcome="selected", option_id=option)
        )
        return schema.RequestPermissionResponse(outcome=outcome)

    # ---- what it lends

    async def read_text_file(self, path: str, **_: Any) -> schema.ReadTextFileResponse:
        tell(lent="read_text_file", path=path)
        if not Path(path).exists():
            raise acp.RequestError.resource_not_found(path)
        return schema.ReadTextFileResponse(content="as edited: " + Path(path).read_text())

    async def write_text_file(self, path: str, content: str, **_: Any) -> None:
        tell(lent="write_text_file", path=path)
        Path(path).write_text(content)

    async def create_terminal(
        self, command: str, args: list[str], cwd: str, **_: Any
    ) -> schema.CreateTerminalResponse:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            command, *args, cwd=cwd, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        terminal = f"terminal-{process.pid}"
        self.terminals[terminal] = (process, bytearray())
        tell(lent="create_terminal", terminal=terminal)
        return schema.CreateTerminalResponse(terminal_id=terminal)

    async def wait_for_terminal_exit(
        self, terminal_id: str, **_: Any
    ) -> schema.WaitForTerminalExitResponse:
        process, output = self.terminals[terminal_id]
        assert process.stdout is not None
        output += await process.stdout.read()
        code = await process.wait()
        return schema.WaitForTerminalExitResponse(exit_code=code if code >= 0 else None)

    async def terminal_output(self, terminal_id: str, **_: Any) -> schema.TerminalOutputResponse:
        output = self.terminals[terminal_id][1].decode()
        return schema.TerminalOutputResponse(output=output, truncated=False)

    async def kill_terminal(self, terminal_id: str, **_: Any) -> None:
        self.terminals[terminal_id][0].kill()

    async def release_terminal(self, terminal_id: str, **_: Any) -> None:
        del self.terminals[terminal_id]
        tell(lent="release_terminal", terminal=terminal_id)


async def connect(stack: AsyncExitStack, editor: Editor, how: Json) -> ClientSideConnection:
    """Connect to an agent: `{"url", "token"}`, or `{"command", "env"}`."""
    client: Any = editor
    settings: Json = {"observers": [Judge()]}
    if "url" in how:
        headers = {"Authorization": f"Bearer {how['token']}"}
        transport = await create_websocket_stream(how["url"], headers=headers)
        return acp.connect_to_agent(client, transport, **settings)
    spawning = spawn_stdio_transport(*how["command"], env=how["env"], limit=LIMIT)
    reader, writer, process = await spawning.__aenter__()
    errors = asyncio.create_task(process.stderr.read() if process.stderr else _nothing())
    tapped = asyncio.StreamReader(limit=LIMIT)
    pump = asyncio.create_task(_pump(reader, tapped))

    async def end() -> None:
        await spawning.__aexit__(None, None, None)
        await pump
        tell(left=process.returncode, stderr=(await errors).decode(errors="replace"))

    stack.push_async_callback(end)
    return acp.connect_to_agent(client, writer, tapped, **settings)


async def _nothing() -> bytes:
    return b""


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamReader) -> None:
    """Pass an agent's output on, and tell of whatever in it is no message on a line of its own."""
    while line := await source.readline():
        try:
            message = json.loads(line.decode())
            is_message = isinstance(message, dict) and line.endswith(b"}\n")
        except ValueError:
            is_message = False
        if not is_message:
            tell(said=line.decode(errors="backslashreplace"))
        sink.feed_data(line)
    sink.feed_eof()


async def do(connection: ClientSideConnection, order: Json) -> None:
    """Do one thing and tell how it went."""
    name, given = order["do"], order.get("with", {})
    # The SDK itself sends the protocol's requests and no others.
    method = "_conn.send_request" if name == "request" else name
    call: Callable[..., Awaitable[Any]] = attrgetter(method)(connection)
    try:
        result = await call(**given)
    except acp.RequestError as error:
        told = {"code": error.code, "message": str(error), "data": error.data}
        tell(id=order["id"], error=told)
    except (ConnectionError, ValidationError) as error:
        tell(id=order["id"], error={"code": 0, "message": repr(error), "data": None})
    else:
        if isinstance(result, BaseModel):
            result = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        tell(id=order["id"], result=result)


async def main(how: Json) -> None:
    editor = Editor()
    orders = asyncio.StreamReader(limit=LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async with AsyncExitStack() as stack:
        connection = await connect(stack, editor, how)
        stack.push_async_callback(connection.close)
        tell(ready=True)
        tasks: set[asyncio.Task[None]] = set()
        while line := await orders.readline():
            order = json.loads(line)
            if "answer" in order:
                editor.answers.pop(order["answer"]).set_result(order["option"])
            else:
                tasks.add(asyncio.create_task(do(connection, order)))
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))

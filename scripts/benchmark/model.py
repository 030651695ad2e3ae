"""A model that costs nothing: it says at once, in as many pieces as it is asked for, what it says.

It speaks chat completions and the Responses API, so that every peer finds its own. The time from
the last byte of a request to the last byte of the answer is its own, and `/spans` tells it: what a
turn takes beyond that is the agent's. It runs as a process of its own and prints its port.
"""

import json
import re
import socket
import threading  # noqa: TID251 - a thread for each connection; this is no trio program
import time
from collections.abc import Iterator
from functools import cache
from typing import Any


Json = dict[str, Any]
WISH = re.compile(rb"Say (\d+) pieces")
ANSWER_BUFFER = 4 * 2**20  # bytes; an answer is handed over whole, whoever is slow to read it
READ_BYTES = 2**20


def wish(pieces: int) -> str:
    """The prompt for an answer of so many pieces."""
    return f"Say {pieces} pieces."


def said(pieces: int) -> str:
    """What the answer to `wish` has to be."""
    return "".join(_pieces(pieces))


def _pieces(count: int) -> list[str]:
    return [f"piece {number} " for number in range(1, count + 1)]


# ---- the two dialects


def _event(data: Json, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _chat(pieces: list[str]) -> Iterator[bytes]:
    def chunk(delta: Json, reason: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _event(
            {
                "id": "c1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "fake",
                "choices": [choice],
                **more,
            }
        )

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces:
        yield chunk({"content": piece})
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    yield chunk({}, "stop", usage=usage)
    yield b"data: [DONE]\n\n"


def _responses(pieces: list[str]) -> Iterator[bytes]:
    def event(kind: str, **data: object) -> bytes:
        return _event({"type": f"response.{kind}", **data}, f"response.{kind}")

    place = {"item_id": "m1", "output_index": 0, "content_index": 0}
    nothing: list[Json] = []
    message: Json = {"type": "message", "role": "assistant", "id": "m1", "content": nothing}
    content = [{"type": "output_text", "text": "".join(pieces), "annotations": nothing}]
    usage = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}
    yield event("created", response={"id": "r1"})
    yield event("output_item.added", output_index=0, item=message)
    for piece in pieces:
        yield event("output_text.delta", delta=piece, **place)
    yield event("output_item.done", output_index=0, item={**message, "content": content})
    yield event("completed", response={"id": "r1", "usage": usage})


@cache
def _answer(path: str, pieces: int) -> bytes:
    """The whole answer, every event in a piece of its own as servers send them."""
    dialect = _responses if path.endswith("/responses") else _chat
    body = b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in dialect(_pieces(pieces)))
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head.encode() + body + b"0\r\n\r\n"


def _plain(status: str, body: object) -> bytes:
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text


# ---- serving


class Model:
    """Serves connections and notes its own times."""

    def __init__(self) -> None:
        self._spans: list[float] = []
        self._lock = threading.Lock()

    def serve(self, connection: socket.socket) -> None:
        """Answer one request after the other."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_BUFFER)
        buffer = b""
        with connection:
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = connection.recv(READ_BYTES)
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                parts, size = [buffer], int(length[1]) if length else 0
                left = size - len(buffer)
                while left > 0:
                    parts.append(connection.recv(READ_BYTES))
                    left -= len(parts[-1])
                began = time.perf_counter()
                body = b"".join(parts)
                buffer = body[size:]
                self._reply(connection, head, body[:size], began)

    def _reply(self, connection: socket.socket, head: bytes, body: bytes, began: float) -> None:
        method, path = head.split(b" ", 2)[:2]
        if method == b"POST":
            found = WISH.findall(body)
            connection.sendall(_answer(path.decode(), int(found[-1]) if found else 1))
            with self._lock:
                self._spans.append(time.perf_counter() - began)
        elif path == b"/spans":
            with self._lock:
                spans, self._spans = self._spans, []
            connection.sendall(_plain("200 OK", spans))
        elif path.endswith(b"/models"):
            models = [{"id": "fake", "object": "model", "created": 1, "owned_by": "nobody"}]
            connection.sendall(_plain("200 OK", {"object": "list", "data": models, "models": []}))
        else:
            connection.sendall(_plain("404 Not Found", {"error": {"message": "not here"}}))


def main() -> None:
    """Listen on a port of the system's choice and say which."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    model = Model()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=model.serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()

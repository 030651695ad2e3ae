"""What a client says of an address where something else answers."""

import pytest
import trio

from moorage_clients.errors import CannotConnect
from moorage_clients.websocket_link import open_websocket_link


@pytest.mark.parametrize(
    "location", ["https://127.0.0.1/acp", "ws://127.0.0.1:{port}/acp", "ws://elsewhere.example/acp"]
)
async def test_redirect_is_not_followed_and_said_in_one_line(location: str) -> None:
    asked: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        asked.append(bytes(await stream.receive_some(65536)))
        to = location.format(port=port)
        await stream.send_all(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n".encode())
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        with pytest.raises(CannotConnect, match="HTTP status 302"):
            async with open_websocket_link(f"ws://127.0.0.1:{port}/acp", "canary"):
                pass
        nursery.cancel_scope.cancel()

    assert len(asked) == 1

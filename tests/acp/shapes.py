"""What the protocol's own types say of messages, as the Python SDK has them."""

from acp import schema

from tests.daemon.twin import Client, Json
from tests.e2e.driver import CALLS, RESULTS, objection


# Of these the SDK's schema knows nothing yet.
UNKNOWN = {"session/status", "session/set_title", "session/archive", "session/unarchive"}


def updates(client: Client) -> list[Json]:
    """The `session/update` messages that a client was sent."""
    return [m for m in client.messages if m.get("method") == "session/update"]


def objections(client: Client) -> list[str]:
    """What is wrong with any message that a plain client was sent."""
    found = [_objection(client, message) for message in client.messages]
    return [problem for problem in found if problem is not None]


def _objection(client: Client, message: Json) -> str | None:
    if set(message) - {"jsonrpc", "id", "method", "params", "result", "error"}:
        return f"beside the members of JSON-RPC: {sorted(message)}"
    if "method" in message:
        shape, payload = CALLS.get(message["method"]), message["params"]
    elif "error" in message:
        shape, payload = schema.Error, message["error"]
    else:
        method = client.asked[message["id"]]
        if method in UNKNOWN or message["result"] == {}:
            return None
        shape, payload = RESULTS.get(method), message["result"]
    if shape is None:
        return f"not of the protocol: {message}"
    return objection(shape, payload)

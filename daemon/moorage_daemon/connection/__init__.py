"""One JSON-RPC conversation with a client, whatever carries it.

`connection` reads and dispatches, `outbox` is what waits to be written and its order,
`attachment` one session as this client follows it, `transport` what moves the frames. A turn
never runs here: when the client goes, nothing of a session goes with it.
"""

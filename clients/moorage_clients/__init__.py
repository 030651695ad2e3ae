"""What people and editors start: the client library, the `moorage` command, the bridge.

Clients know the wire and nothing of the daemon's insides.
"""

"""The only code that touches the disk for sessions.

What a session is on disk stands in `model`, what every backend promises in `port`; each other
module is one backend. Nothing here knows of turns, clients or the wire.
"""

"""The wire between the daemon and its clients: bytes in, structs out.

Lives on the standard library and msgspec alone: no event loop, no sockets. This file
imports nothing, so that a program which needs one module pays for one module.
"""

# Here, because reading the metadata of an installed distribution takes 40 ms of a start.
__version__ = "0.1.0"

"""Where clients come in, and what moves their frames: a unix socket and WebSocket.

Who may come in is decided here and before anything is read from the client; what a connection
does is none of this package's business.
"""

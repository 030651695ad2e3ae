"""Sessions in files that a person can read: a journal for each, and one log of commits.

A commit is one frame in the log of commits, synced once, however many sessions it is about; that
is what makes it whole. Later, between commits, its lines go into the journals of its sessions.
`frames` says what a frame is, `commits` keeps the log, `journal` one session's file, `shelf` is
all that is stored and what changes it, `reading` looks things up beside it, `store` is the front.
"""

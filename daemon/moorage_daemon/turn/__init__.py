"""One turn: from a prompt to exactly one verdict.

`turn` is the turn itself and the first cause that wins, `stage` what its agent can do, `asks` the
questions it puts, `verdict` the rule that says how it ended. A turn never raises for what a model,
a tool, a client or a bug in any of them did: one session's failure is never another's.
"""

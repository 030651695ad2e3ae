"""The log of a session: numbered, durable before it is told, read through cursors.

`log` gives numbers and lets those wait who must, `committer` is the one task that writes,
`told` is what may be told of a session, `cursor` a reader's place, `render` the wire form of an
entry. Nothing here decides anything about turns.
"""

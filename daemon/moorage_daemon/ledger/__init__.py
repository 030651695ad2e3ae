"""The grants of a running daemon: decided in memory, recorded before anybody is told.

A grant is kept like a session that has no turns: a head, which says how it stands, and a log of
how that came about. So a charge is in the same commit as the tool call it is for, on every store.
"""

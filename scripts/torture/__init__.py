"""Breaks the daemon's surroundings many times over, and checks what it promised.

Each script is a program of its own: `scripts/torture/run NAME`. A figure counts only beside a
control arm that does the same thing wrongly and has to be noticed. Nothing here imports the daemon:
it is seen from outside, through its sockets, its files and /proc.
"""

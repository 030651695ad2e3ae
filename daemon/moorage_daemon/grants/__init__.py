"""What a session may do: grants, what was used of them, and the rules below them.

Everything here is a plain decision over plain values: nothing waits, reads a clock, opens a file
or knows a session. Whoever asks brings the moment and keeps the answer.
"""

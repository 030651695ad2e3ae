"""What an agent may call: each tool does one thing in the session's workspace.

A tool knows nothing of sessions, permissions or the log; whether it may run was decided before.
"""

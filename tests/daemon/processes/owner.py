"""Owns one command, as the daemon does, until it is killed: `owner.py [--deaf] COMMAND...`.

It prints its supervisor's process id when the command has written "ready". A deaf one never hears
what its supervisor says, and prints nothing.
"""

import os
import sys
from pathlib import Path

import trio

from moorage_daemon.processes.environment import tool_environment
from moorage_daemon.processes.spawn import spawn


async def own(command: list[str]) -> None:
    process = spawn(command, cwd=Path.cwd(), env=tool_environment(os.environ))
    async with process.attended():
        while "ready" not in process.output.text() and process.exit is None:
            await process.more(process.output.total)
        os.write(1, f"{process.pid}\n".encode())
        await process.wait()


async def own_deaf(command: list[str]) -> None:
    process = spawn(command, cwd=Path.cwd(), env=tool_environment(os.environ))
    while process.exit is None:
        await trio.sleep_forever()


if __name__ == "__main__":
    if sys.argv[1] == "--deaf":
        trio.run(own_deaf, sys.argv[2:])
    else:
        trio.run(own, sys.argv[1:])

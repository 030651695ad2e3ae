"""Programs that pass for `mooraged` where a test is about starting one."""

import json
import os
from pathlib import Path


# Keeps the rules of a state directory and answers every request but a prompt with its own pid.
ANSWERS = """
import fcntl, json, os, socket, sys, threading

state = sys.argv[sys.argv.index("--state-dir") + 1]
lock = os.open(f"{state}/lock", os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("a daemon is already running here")
os.write(lock, str(os.getpid()).encode())
with open(f"{state}/starts.json", "a") as starts:
    record = {"pid": os.getpid(), "flags": sys.argv[1:], "cwd": os.getcwd(), "sid": os.getsid(0)}
    starts.write(json.dumps(record) + "\\n")
path = f"{state}/daemon.sock"
if os.path.exists(path):
    os.unlink(path)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(64)
with open(f"{state}/daemon.json.new", "w") as note:
    json.dump({"pid": os.getpid(), "websocket": None, "unix": path}, note)
os.rename(f"{state}/daemon.json.new", f"{state}/daemon.json")
print(json.dumps({"ready": True}), flush=True)

def serve(connection):
    for line in connection.makefile("rb"):
        message = json.loads(line)
        if "id" in message and message["method"] != "session/prompt":
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"pid": os.getpid()}}
            connection.sendall(json.dumps(answer).encode() + b"\\n")

while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

FAILS = """
import sys
sys.exit("mooraged: moorage.toml: unknown key 'stoer'")
"""


def environment_with(folder: Path, program: str) -> dict[str, str]:
    """An environment in which `python -m moorage_daemon` runs `program`."""
    package = folder / "stub" / "moorage_daemon"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(program)
    return {**os.environ, "PYTHONPATH": str(package.parent)}


def starts(state_dir: Path) -> list[dict[str, object]]:
    """What daemons were started in a state directory, as they noted it themselves."""
    path = state_dir / "starts.json"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

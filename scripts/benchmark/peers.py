"""The peers that are real agents: how they are had, started and asked.

They are installed by name and version into a cache outside the tree when they are wanted, and kept
there. One that cannot be had is named with the reason in the result: a ratio to nobody is none.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from platformdirs import user_cache_path

from scripts.benchmark.wire import Agent, Json, Lines, process_stream


CODEX = "@openai/codex"
CODEX_VERSION = "0.171.0"
FAST_AGENT = "fast-agent-mcp"
FAST_AGENT_VERSION = "0.10.48"
PYTHON_MINORS = (13, 12, 14, 15)  # of Python 3, as it takes them
INSTALL_PATIENCE = 900  # seconds


class Missing(Exception):
    """A peer cannot be had here; one line says why."""


class Talker(Protocol):
    """An agent at work, as it is asked here."""

    def begin(self, cwd: Path) -> str:
        """A new session's id."""
        ...

    def ask(self, session: str, text: str) -> list[bytes]:
        """One turn; gives what came before its end."""
        ...

    def said(self, heard: list[bytes]) -> str:
        """The agent's words in that."""
        ...


class AcpTalker:
    """Speaks the Agent Client Protocol."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def begin(self, cwd: Path) -> str:
        """See `Talker`."""
        return self._agent.new_session(cwd)

    def ask(self, session: str, text: str) -> list[bytes]:
        """See `Talker`."""
        heard: list[bytes] = []
        self._agent.prompt(session, text, heard.append)
        return heard

    def said(self, heard: list[bytes]) -> str:
        """See `Talker`."""
        updates = [json.loads(raw).get("params", {}).get("update", {}) for raw in heard]
        return "".join(
            update["content"].get("text", "")
            for update in updates
            if update.get("sessionUpdate") == "agent_message_chunk"
        )


class CodexTalker:
    """Speaks the protocol of `codex app-server`: JSON-RPC in lines, threads, turns and items."""

    def __init__(self, stream: Lines) -> None:
        self._stream = stream
        self._id = 0
        self._call("initialize", {"clientInfo": {"name": "bench", "title": "b", "version": "1"}})
        self._send({"method": "initialized", "params": {}})

    def begin(self, cwd: Path) -> str:
        """See `Talker`."""
        params = {"cwd": str(cwd), "approvalPolicy": "never", "sandbox": "read-only"}
        thread: str = self._call("thread/start", params)["thread"]["id"]
        return thread

    def ask(self, session: str, text: str) -> list[bytes]:
        """See `Talker`."""
        params = {"threadId": session, "input": [{"type": "text", "text": text}]}
        self._id += 1
        self._send({"id": self._id, "method": "turn/start", "params": params})
        heard: list[bytes] = []
        while True:
            raw = self._stream.receive()
            if b'"turn/completed"' in raw and json.loads(raw).get("method") == "turn/completed":
                return heard
            heard.append(raw)

    def said(self, heard: list[bytes]) -> str:
        """See `Talker`."""
        deltas = [json.loads(raw) for raw in heard if b'"item/agentMessage/delta"' in raw]
        return "".join(message["params"]["delta"] for message in deltas)

    def _call(self, method: str, params: Json) -> Json:
        self._id += 1
        self._send({"id": self._id, "method": method, "params": params})
        while True:
            message = json.loads(self._stream.receive())
            if message.get("id") == self._id:
                result: Json = message["result"]
                return result

    def _send(self, message: Json) -> None:
        self._stream.send(json.dumps(message).encode())


# ---- having them


@dataclass(frozen=True)
class Peer:
    """A peer by name: `prepare` installs it and `start` runs it against a model's address."""

    name: str
    version: str
    prepare: Callable[[Path], Path]
    start: Callable[[Path, Path, str], tuple[subprocess.Popen[bytes], Callable[[Lines], Talker]]]

    def install(self) -> Path:
        """The program, installed if it is not there yet; raises `Missing`."""
        place = user_cache_path("moorage") / "bench" / f"{self.name}-{self.version}"
        place.mkdir(parents=True, exist_ok=True)
        return self.prepare(place)

    @contextmanager
    def running(self, program: Path, work: Path, base_url: str) -> Generator[Talker]:
        """The peer, asking the model at `base_url`, with its files beneath `work`."""
        home = work / self.name
        home.mkdir()
        process, talker = self.start(program, home, base_url)
        try:
            yield talker(process_stream(process))
        finally:
            process.kill()
            process.wait()


def _run(command: list[str]) -> None:
    """One step of an installation, quietly; raises `Missing`."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{name} cannot be run: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise Missing(f"{name} failed: {last}")


def _prepare_codex(place: Path) -> Path:
    if not (found := _codex_binary(place)):
        if shutil.which("npm") is None:
            raise Missing("npm is not installed")
        options = ["--no-audit", "--no-fund", "--prefix", str(place)]
        _run(["npm", "install", *options, f"{CODEX}@{CODEX_VERSION}"])
        found = _codex_binary(place)
    if not found:
        raise Missing("the package brings no program for this machine")
    return found[0]


def _codex_binary(place: Path) -> list[Path]:
    return [p for p in place.glob("node_modules/@openai/*/vendor/*/**/codex") if p.is_file()]


def _start_codex(
    program: Path, home: Path, base_url: str
) -> tuple[subprocess.Popen[bytes], Callable[[Lines], Talker]]:
    (home / "config.toml").write_text(
        'model = "fake"\nmodel_provider = "fake"\n[model_providers.fake]\nname = "fake"\n'
        f'base_url = "{base_url}"\nwire_api = "responses"\n'
    )
    return _started([str(program), "app-server"], home, {"CODEX_HOME": str(home)}), CodexTalker


def _prepare_fast_agent(place: Path) -> Path:
    program = place / "bin" / "fast-agent-acp"
    if not program.exists():
        _run([_python(), "-m", "venv", str(place)])
        requirement = f"{FAST_AGENT}=={FAST_AGENT_VERSION}"
        _run([str(place / "bin" / "pip"), "install", "--quiet", requirement])
    if not program.exists():
        raise Missing("the package brings no fast-agent-acp")
    return program


def _python() -> str:
    """An interpreter that is new enough, from where pyenv keeps them or from the search path."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates: list[str] = []
    for minor in PYTHON_MINORS:
        candidates += [str(path) for path in kept.glob(f"3.{minor}.*/bin/python")]
        found = shutil.which(f"python3.{minor}")
        candidates += [found] if found is not None else []
    for candidate in candidates:
        done = subprocess.run([candidate, "-c", ""], capture_output=True, check=False)
        if done.returncode == 0:  # pyenv leaves stand-ins that run nothing
            return candidate
    raise Missing("it needs Python 3.12 or newer, and there is none")


def _start_fast_agent(
    program: Path, home: Path, base_url: str
) -> tuple[subprocess.Popen[bytes], Callable[[Lines], Talker]]:
    config = home / "fastagent.config.yaml"
    config.write_text(
        f'default_model: "generic.fake"\ngeneric:\n  base_url: "{base_url}"\n  api_key: "none"\n'
        'logger:\n  type: "none"\n  progress_display: false\n  show_chat: false\n'
    )
    command = [str(program), "--config-path", str(config), "--model", "generic.fake"]
    return _started(command, home, {"HOME": str(home)}), lambda s: AcpTalker(Agent(s))


def _started(
    command: list[str], home: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    with (home / "stderr.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=home,
            env={**os.environ, **environment},
        )


PEERS = (
    Peer("codex-app-server", CODEX_VERSION, _prepare_codex, _start_codex),
    Peer("fast-agent-acp", FAST_AGENT_VERSION, _prepare_fast_agent, _start_fast_agent),
)

"""A session of the a3s layout comes into a real daemon, by the command, from files on a disk."""

import json
from pathlib import Path
from typing import Any

from tests.daemon.transfer.test_a3s import DOCUMENT, laid_out
from tests.e2e.commands import Ended, moorage
from tests.e2e.daemons import DaemonProcess


Json = dict[str, Any]

POLICY = {
    "deny": [{"rule": "Read(secret/**)"}, {"rule": "Bash(*sudo*)"}],
    "allow": [{"rule": "Read(src/**)"}],
    "default_decision": "ask",
    "enabled": True,
}
CONFIG: Json = DOCUMENT["config"]


def test_a_session_of_that_layout_comes_in_and_is_all_there(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    def run(*words: str) -> Ended:
        return moorage(*words, state_dir=daemon.state_dir, cwd=tmp_path)

    def done(*words: str) -> str:
        ended = run(*words)
        assert ended.code == 0, ended
        return ended.out

    document = DOCUMENT | {"config": CONFIG | {"permission_policy": POLICY}}
    folder = laid_out(tmp_path / "sessions", document)

    ended = run("import", str(folder), "--a3s", "session/a", "--keep-allowed")

    assert ended.code == 0, ended
    session = ended.out.strip()
    assert ended.err == (
        "permissions: deny Bash(*sudo*): not known here, so no call of Bash is allowed unasked\n"
    )
    log = done("log", session)
    assert "Hi there!" in log
    verdicts = done("log", session, "--kind", "verdict", "--json").splitlines()
    assert [json.loads(line)["outcome"] for line in verdicts] == [
        "completed",
        "completed",
        "cancelled",
    ]
    kinds = [json.loads(line)["kind"] for line in done("log", session, "--kind", "result",
             "--kind", "report", "--kind", "imported", "--json").splitlines()]  # fmt: skip
    assert kinds == ["result", "report", "imported"]
    usage = done("usage", session)
    assert "context  100 of 200,000 tokens (0%), 3 turns" in usage
    assert "tokens   50 in, 50 out" in usage
    assert "cost     0.25 USD" in usage
    [artifact] = json.loads(done("artifacts", session, "--json"))["artifacts"]
    assert artifact["artifactUri"] == "a3s://tool-output/test/a"
    assert done("artifacts", session, "--get", str(artifact["seq"])) == "artifact content"
    config = done("configure", session)
    assert "name=Test Session" in config
    assert "Read(secret/**)" in config
    assert "Read(src/**)" in config

    exported = done("export", session)
    (tmp_path / "again.jsonl").write_text(exported)
    again = run("import", "again.jsonl")
    assert (again.code, again.err) == (0, "left behind: permissions that allow\n")
    assert "Hi there!" in done("log", again.out.strip())
    clash = run("import", "again.jsonl", "--keep-id")
    assert clash.code == 1
    assert "a session of that id is there" in clash.err
    foreign = run("import", str(folder), "--a3s", "session/a", "--keep-id")
    assert foreign.code == 1
    assert "import it under a new one" in foreign.err

    found = b"".join(path.read_bytes() for path in daemon.state_dir.rglob("*") if path.is_file())
    assert b"artifact content" in found
    assert b"sk-canary" not in found


def test_files_that_are_not_what_they_have_to_be_are_named(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    folder = laid_out(tmp_path)
    traces = folder / "traces" / "session_a.json"
    traces.rename(folder / "elsewhere")
    traces.symlink_to(folder / "elsewhere")

    ended = moorage("import", str(folder), "--a3s", "session/a",
                    state_dir=daemon.state_dir, cwd=tmp_path)  # fmt: skip

    assert (ended.code, ended.out) == (1, "")
    assert "traces/session_a.json is a link" in ended.err
    assert "Traceback" not in ended.err

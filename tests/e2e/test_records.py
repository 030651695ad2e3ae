"""What is on record of a session, and the session as a file, by the command and a real daemon."""

import json
from pathlib import Path

from tests.e2e.commands import Ended, moorage
from tests.e2e.daemons import DaemonProcess


def test_a_session_is_looked_at_taken_out_and_brought_in(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    def run(*words: str) -> Ended:
        return moorage(*words, state_dir=daemon.state_dir, cwd=tmp_path)

    def done(*words: str) -> str:
        ended = run(*words)
        assert ended.code == 0, ended
        return ended.out

    session = done("new").strip()
    done("prompt", "--allow", "/run seq 1 100000")
    done("prompt", "--allow", "/verify true")
    done("configure", "name=Counting", "system_prompt=Be brief.", "label.tenant=one")

    [artifact] = json.loads(done("artifacts", "--json"))["artifacts"]
    numbers = done("artifacts", session, "--get", str(artifact["seq"]))
    assert numbers == "".join(f"{number}\n" for number in range(1, 100_001))
    assert artifact["uri"] in done("log", "--kind", "tool", "--json")
    assert "context  0 of 200,000 tokens (0%), 2 turns" in done("usage")
    [report] = [json.loads(line) for line in done("log", "--kind", "report", "--json").splitlines()]
    assert report["checks"][0]["status"] == "passed"
    assert "name=Counting" in done("configure")

    done("export", "-o", "session.jsonl")
    copy = done("import", "session.jsonl").strip()

    assert copy != session
    assert done("artifacts", copy, "--get", str(artifact["seq"])) == numbers
    assert "label.tenant=one" in done("configure", copy)
    refused = run("import", "session.jsonl", "--keep-id")
    assert refused.code == 1
    assert "line 1: a session of that id is there" in refused.err
    lines = (tmp_path / "session.jsonl").read_text().splitlines()
    lines[2] = lines[2].replace('"at":', '"on":')
    (tmp_path / "broken.jsonl").write_text("\n".join(lines))
    broken = run("import", "broken.jsonl")
    assert (broken.code, broken.out) == (1, "")
    assert "line 3: " in broken.err
    assert run("export", session).out.startswith('{"moorage":"session"')
    ids = [row["sessionId"] for row in json.loads(done("ls", "--json"))["sessions"]]
    assert {session, copy} <= set(ids)
    assert len([found for found in ids if found in (session, copy)]) == 2

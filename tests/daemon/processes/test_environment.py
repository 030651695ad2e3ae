"""What a tool sees of the daemon's environment."""

from moorage_daemon.processes.environment import tool_environment


def test_only_listed_variables_pass() -> None:
    base = {
        "HOME": "/home/a",
        "PATH": "/bin",
        "LC_CTYPE": "C.UTF-8",
        "VIRTUAL_ENV": "/venv",
        "ANTHROPIC_API_KEY": "secret",
        "MOORAGE_STATE_DIR": "/state",
        "LC_SECRET": "secret",
        "LD_PRELOAD": "/evil.so",
        "PYTHONPATH": "/evil",
        "TERM": "xterm",
    }

    assert tool_environment(base) == {
        "HOME": "/home/a",
        "PATH": "/bin",
        "LC_CTYPE": "C.UTF-8",
        "VIRTUAL_ENV": "/venv",
        "TERM": "dumb",
    }


def test_ssh_agent_is_lent_not_inherited() -> None:
    base = {"SSH_AUTH_SOCK": "/inherited"}

    assert "SSH_AUTH_SOCK" not in tool_environment(base)
    assert tool_environment(base, ssh_auth_sock="/lent")["SSH_AUTH_SOCK"] == "/lent"

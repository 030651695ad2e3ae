"""What a tool sees of the daemon's environment, and of its user's."""

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
    assert "SSH_AUTH_SOCK" not in tool_environment(base, {})
    assert tool_environment(base, {"SSH_AUTH_SOCK": "/lent"})["SSH_AUTH_SOCK"] == "/lent"


def test_lent_variables_stand_instead_of_the_daemons() -> None:
    base = {"PATH": "/bin", "VIRTUAL_ENV": "/the/daemon's"}
    lent = {"PATH": "/mine/bin:/bin", "VIRTUAL_ENV": "/mine"}

    assert tool_environment(base, lent) == {**lent, "TERM": "dumb"}


def test_daemons_virtual_environment_does_not_go_with_a_lent_path() -> None:
    base = {"PATH": "/venv/bin:/bin", "VIRTUAL_ENV": "/venv"}

    assert tool_environment(base, {"PATH": "/bin"}) == {"PATH": "/bin", "TERM": "dumb"}


def test_nothing_but_what_can_be_lent_is_taken_from_a_loan() -> None:
    lent = {"PATH": "/bin", "LD_PRELOAD": "/evil.so", "HOME": "/elsewhere"}

    assert tool_environment({"HOME": "/home/a"}, lent) == {
        "HOME": "/home/a",
        "PATH": "/bin",
        "TERM": "dumb",
    }

"""Rules about commands, against many that try to get past them.

That what is allowed really starts nothing else is seen by `scripts/torture/run commands`, which
runs the same commands under a trace.
"""

import pytest
from hypothesis import example, given, strategies as st

from moorage_daemon.grants.calls import Argv, Call, Shell
from moorage_daemon.grants.credentials import filled_for_shell
from moorage_daemon.grants.policy import Policy, Say
from moorage_daemon.grants.rules import Allowlist, read_rule
from moorage_daemon.grants.shell import MAX_COMMAND, Word, commands_in, plain_words
from moorage_daemon.grants.touching import Touch
from moorage_protocol.config import Permissions
from tests.daemon.grants import slow_shell
from tests.daemon.grants.commands import (
    ALLOW,
    FILLED,
    HONEST,
    HONEST_FILLED,
    HOSTILE,
    HOSTILE_FILLED,
    SECRET,
)


POLICY = Policy(Permissions(allow=ALLOW))
NO_INTRUDER = Policy(Permissions(allow=("Bash",), deny=("Bash(intruder:*)",)))


def say(policy: Policy, command: str) -> Say:
    return policy.rule(Call("Bash", Shell(command))).say


def naive(command: str) -> bool:
    """What a rule of the same meaning does that only looks at how a command begins."""
    return command.startswith(tuple(rule[5:-3] for rule in ALLOW))


def touch(rule: str, command: str) -> Touch:
    return read_rule(rule).touches(Call("Bash", Shell(command)))


def permits(rule: str, command: str) -> bool:
    return read_rule(rule).permits(Call("Bash", Shell(command)))


_NO_SPACES = "\t\x00\x0b\x0c\x1b\x85\u00a0\u200b\u2028\u2029\ufeff"  # a shell reads on


def _starts_intruder(command: str) -> bool:
    """Whether it does more with that name than to list, show or write a file of it."""
    only_names_it = command in {"ls > intruder", "ls >intruder", "cat <<< intruder"}
    is_one_word = any(letter in command for letter in _NO_SPACES)
    return "intruder" in command and not only_names_it and not is_one_word


def test_corpus_is_large_enough() -> None:
    assert len(HOSTILE) >= 300
    assert sum(map(naive, HOSTILE)) > 150  # the control: most of it gets past a plain prefix


@pytest.mark.parametrize("command", HONEST)
def test_command_of_nothing_but_words_is_allowed(command: str) -> None:
    assert say(POLICY, command) is Say.ALLOW


@pytest.mark.parametrize("command", HOSTILE)
def test_command_that_could_start_another_is_not_allowed(command: str) -> None:
    assert say(POLICY, command) is not Say.ALLOW
    assert not Allowlist(ALLOW).permits(Call("Bash", Shell(command)))


@pytest.mark.parametrize("command", [each for each in HOSTILE if _starts_intruder(each)])
def test_denied_program_is_denied_or_asked_about_wherever_it_stands(command: str) -> None:
    """Beneath `Bash` as a whole: what deny cannot see through, somebody has to look at."""
    assert say(NO_INTRUDER, command) in (Say.DENY, Say.ASK)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("git log", ("git", "log")),
        ("  git   log  ", ("git", "log")),
        ("echo 'a b' \"c d\"", ("echo", "a b", "c d")),
        ("echo a'b'\"c\"", ("echo", "abc")),
        ("echo ''", ("echo", "")),
        ("echo x=y", ("echo", "x=y")),
    ],
)
def test_words_are_those_the_shell_would_make(command: str, words: tuple[str, ...]) -> None:
    assert plain_words(command) == words


@given(st.text(alphabet=" abgit'\"\\$`;&|()<>\n#=*{}~!", max_size=30))
def test_reading_ends_for_any_text(text: str) -> None:
    found = commands_in(text)

    words = plain_words(text)
    if words is not None:
        assert found.is_certain
        assert [tuple(word.text for word in found.commands[0])] == [words]


_STARTS = ("git", "$(", "${", "$'", "if ", "time ", "X=1 ")
_PIECES = st.sampled_from(
    [
        *" abé=~#*?[]{}!^;&|()<>\n\t\r'\"\\$`\u00a0\u200b",
        "git",
        "$(",
        "${",
        "$'",
        "if ",
        "time ",
        "X=1 ",
    ]
)


@given(st.lists(_PIECES, max_size=25).map("".join) | st.sampled_from([*HONEST, *HOSTILE]))
@example("a" * (MAX_COMMAND + 1))
def test_quick_reading_is_that_of_letter_by_letter(text: str) -> None:
    assert plain_words(text) == slow_shell.plain_words(text)
    assert commands_in(text) == slow_shell.commands_in(text)


def test_some_of_what_is_compared_is_plain_and_some_is_not() -> None:
    """The control: neither reading says the same of everything."""
    found = [slow_shell.plain_words(command) for command in (*HONEST, *HOSTILE)]

    assert min(found.count(None), len(found) - found.count(None)) >= len(HONEST)


# ---- credentials


@pytest.mark.parametrize("command", HONEST_FILLED)
def test_command_of_nothing_but_words_and_credentials_is_allowed(command: str) -> None:
    assert POLICY.rule(Call("Bash", Shell(command, FILLED))).say is Say.ALLOW
    assert say(POLICY, command) is not Say.ALLOW, "the control: nobody fills them in"


@pytest.mark.parametrize("command", HOSTILE_FILLED)
def test_command_that_a_credential_could_make_another_is_not_allowed(command: str) -> None:
    assert POLICY.rule(Call("Bash", Shell(command, FILLED))).say is not Say.ALLOW


def test_secret_of_the_corpus_reaches_a_shell_in_one_piece() -> None:
    text, variables = filled_for_shell("echo ${CRED:key}", {"key": SECRET})

    assert SECRET not in text
    assert [*variables.values()] == [SECRET]


def filled(rule: str, command: str, *names: str) -> bool:
    """Whether a command is permitted, of which those credentials are filled in."""
    return read_rule(rule).permits(Call("Bash", Shell(command, names)))


@pytest.mark.parametrize(
    "command",
    [
        'curl -H "Authorization: Bearer ${CRED:key}" https://example.org',
        "curl -u me:${CRED:key} https://example.org",
        "curl -u ${CRED:key} https://example.org",
        "curl 'with ${CRED:key}' ${CRED:key}${CRED:other}",
    ],
)
def test_credential_that_is_filled_in_is_a_part_of_a_word(command: str) -> None:
    assert filled("Bash(curl:*)", command, "key", "other")


@pytest.mark.parametrize(
    "command",
    [
        "curl ${CRED:else}",  # which nobody fills in
        "curl ${CRED:key ${CRED:key}",
        "curl ${key}",
        "curl ${CRED}",
        "curl ${CRED:key:-x}",
        "curl ${CRED:-$(intruder)}",
        "curl ${CRED:key}; intruder",
        "curl `${CRED:key}`",
        "curl $(${CRED:key})",
        "curl $${CRED:key}",
        "curl ${${CRED:key}}",
        "curl \\${CRED:key}",
        "curl ${CRED:key}*",
        "curl ${CRED:key}\nintruder",
        "curl ${CRED:key} > file",
        'curl "${CRED:key}',
        "${CRED:key} curl",
        "c${CRED:key} x",
        "'${CRED:key}' x",
        "X=${CRED:key} curl",
        "curl \ue0000\ue000",
    ],
)
def test_credential_in_anything_else_is_not(command: str) -> None:
    assert not filled("Bash(curl:*)", command, "key")


@pytest.mark.parametrize(
    ("command", "permitted"),
    [
        ("git clone https://me:${CRED:key}@example.org/x", True),
        ("git push https://me:${CRED:key}@example.org/x main", True),
        ("git fetch ${CRED:key}", False),  # it could be an option
        ("git fetch -${CRED:key}", False),
        ("git fetch --${CRED:key}=1", False),
        ("git fetch --x=${CRED:key}", True),
        ("git ${CRED:key}", False),
    ],
)
def test_credential_that_could_become_an_option_is_none_of_a_plain_word(
    command: str, *, permitted: bool
) -> None:
    assert filled("Bash(git:*)", command, "key") is permitted


@pytest.mark.parametrize("command", ["sed s/a/${CRED:key}/ a.txt", "tar xf h${CRED:key}"])
def test_credential_in_a_script_is_not_permitted(command: str) -> None:
    assert not filled("Bash(sed:*)", command, "key")
    assert not filled("Bash(tar:*)", command, "key")


def test_denied_command_is_denied_with_a_credential_too() -> None:
    rule = read_rule("Bash(curl:*)")

    assert rule.touches(Call("Bash", Shell("ls; curl ${CRED:key}", ("key",)))) is Touch.YES
    assert rule.touches(Call("Bash", Shell("${CRED:key} x", ("key",)))) is Touch.UNSURE


def test_commands_are_found_in_all_that_a_shell_nests() -> None:
    found = commands_in('a 1 && b `c` "$(d; (e))" | f > g; if h; then X=1 i; fi # j')

    assert [words[0].text for words in found.commands] == ["a", "c", "d", "e", "b", "f", "h", "i"]


def test_word_that_the_shell_makes_is_uncertain() -> None:
    [words] = commands_in("$x a$y b 'c$z'").commands

    assert words == (Word("$x", False), Word("a$y", False), Word("b"), Word("c$z"))


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf x",
        "/bin/rm x",
        "ls; rm x",
        "ls | rm",
        "ls && X=1 rm x",
        "> out rm x",
        "2>&1 rm x",
        "(rm x)",
        "{ rm x; }",
        "! rm x",
        "if true; then rm x; fi",
        "case a in a) rm x;; esac",
        "echo $(rm x)",
        "echo `rm x`",
        'echo "a $(echo "b" ; rm x) c"',
        "env A=1 rm x",
        "sudo -n rm x",
        "timeout 5 rm x",
        "find . -exec rm {} +",
        "xargs -0 rm",
        "sh -c 'rm x'",
        "sh -c 'ls; rm x'",
        "sh -c \"sh -c 'rm x'\"",
        "eval rm x",
        '"rm" x',
        "r''m x",
        "\\rm x",
        "r\\\nm x",
        "cat <<X\n$(rm x)\nX",
        "f() { rm x; }; f",
        "ls # '\nrm x",
        "for i in a b; do rm $i; done",
        "time -p rm x",
        "time -p -- rm x",
        "uv run rm x",
        "ip netns exec a rm x",
        "bwrap --bind / / rm x",
        "hyperfine 'rm x'",
        "ssh-agent rm x",
        "hash -p /bin/rm z; z x",
        "mapfile -C 'rm x' -c 1 a",
        "let 'a[$(rm x)]'",
    ],
)
def test_denied_command_is_found_in_every_segment(command: str) -> None:
    assert touch("Bash(rm:*)", command) is Touch.YES


@pytest.mark.parametrize(
    "command",
    [
        *("$x y", "${a}m x", "r{m,x}", "r? x", "sh -c $x", "X=rm ls", "a 'b"),
        "printf 'r\\155 x' | sh",
        "base64 -d x | bash -s a",
        "base64 -d x | sudo -n sh",
        "sh < x",
        "base64 -d x | python3",
        "base64 -d x | python3 -",
        'perl -ne \'system "r" . "m x"\' f',
        "base64 -d x | parallel",
        "at now < x",
        "install -s --strip-program=x a b",
        "alias z=r${y}m\nz x",
        "y=m; x='$(r$y)'; echo ${x@P}",
        "PS4='$(r$y)'; set -x; ls",
        "test -v 'a[$(r''m)]'",
        "<()rm x",
        "printf 'r%s x' m | xargs env",
        "printf 'r%s x' m | xargs -n 2 -t nice -n 5",
        "printf 'r%s' m | xargs -I@ @ x",
        "printf 'r%s' m | xargs -I @ sh -c '@ x'",
        "printf 'r%s' m | xargs -i{} -n1 sh -c 'echo; {} x'",
        "printf 'r%s' m | xargs --replace=@ env @",
        "printf 'r%s' m | xargs --replace {} x",
        "printf 'r%s x' m | sudo xargs -- env",
        "printf 'r%s x' m | xargs -I@ ls" + " a" * 200 + " @",
    ],
)
def test_command_that_nobody_can_tell_is_unsure(command: str) -> None:
    assert touch("Bash(rm:*)", command) is Touch.UNSURE


@pytest.mark.parametrize(
    "command",
    [
        "ls rm",
        "git rm x",
        "echo 'rm x'",
        "git commit -m 'rm x; rm y'",
        "ls > rm",
        "rmdir x",
        "echo $HOME",
        "ls # rm x",
        "X=1 ls",
        "sh build.sh",
        "bash -c 'ls; pwd'",
        "python3 -m pytest",
        "find . -name sh",
        "docker ps",
        "time -p ls",
        "ls | xargs -0 -n 1 basename -a",
        "ls | xargs",
        "ls | xargs -I@ cp @ @.old",
        "ls | xargs -n1 sh -c 'wc \"$1\"' x",
        "cat > x <<'X'\nno rm? (no)\nX",
        "cat <<-X && ls\n\t- rm\n\tX\nls",
        'git commit -m "$(cat <<X\nNo rm here\nX\n)"',
        "echo $((a + $b * 2)) ${a:-b} ${#a} ${a##*/} ${a[1]} ${@} $? $$",
        "echo `ls 'a b' \"c\"` $'a b' \"it's $'\"",
        "echo $( (ls); (ls) )",
    ],
)
def test_word_elsewhere_is_not_the_command(command: str) -> None:
    assert touch("Bash(rm:*)", command) is Touch.NO


@pytest.mark.parametrize(
    "command",
    [
        *("git push", "git push -f", "git -C x push", "git --no-pager -c a=b push origin"),
        *("git-push", "/usr/lib/git-core/git-push origin", "env git-push"),
    ],
)
def test_options_between_the_words_of_a_denied_command_change_nothing(command: str) -> None:
    assert touch("Bash(git push:*)", command) is Touch.YES


def test_program_of_git_is_meant_by_its_own_name_too() -> None:
    assert touch("Bash(git-lfs:*)", "git-lfs push") is Touch.YES


def test_other_verb_is_another_command() -> None:
    assert touch("Bash(git push:*)", "git commit -m push") is Touch.NO
    assert touch("Bash(git push)", "git push origin") is Touch.NO


def test_denied_whole_tool_denies_every_command() -> None:
    assert touch("Bash", "$x") is Touch.YES


@pytest.mark.parametrize(
    ("rule", "command"),
    [
        ("Bash(npm run:*)", "npm run build"),
        ("Bash(python3 -m pytest:*)", "python3 -m pytest -q tests"),
        ("Bash(python3 tool.py:*)", "python3 tool.py --fast"),
        ("Bash(git push:*)", "git push origin main"),
        ("Bash(make test)", "make test"),
        ("Bash(cd src && make)", "cd src && make"),
        ("Bash(cargo:*)", "cargo"),
        ("Bash(docker ps:*)", "docker ps -a"),
        ("Bash(uv sync:*)", "uv sync --frozen"),
    ],
)
def test_rule_that_says_more_permits_more(rule: str, command: str) -> None:
    assert permits(rule, command)


@pytest.mark.parametrize(
    ("rule", "command"),
    [
        ("Bash(npm run:*)", "npm run build && intruder"),
        ("Bash(python3 -m:*)", "python3 -m intruder"),
        ("Bash(python3 -W ignore:*)", "python3 -W ignore intruder"),
        ("Bash(timeout 5:*)", "timeout 5 intruder"),
        ("Bash(make test)", "make test all"),
        ("Bash(make test)", "make  test; intruder"),
        ("Bash(cargo:*)", "cargox"),
        ("Bash(cargo:*)", "cargo b; rm -rf /"),
        ("Bash(cargo:*)", "cargo --config build.rustc-wrapper=intruder build"),
        ("Bash(git log:*)", "git log --textconv"),
        ("Bash(install:*)", "install -s --strip-program=intruder a b"),
        ("Bash(cpio:*)", "cpio --rsh-command=intruder -F h:a"),
        ("Bash(rustc:*)", "rustc -Clinker=intruder a.rs"),
        ("Bash(svn:*)", "svn diff --diff-cmd intruder"),
        ("Bash(hg:*)", "hg --config alias.x=!intruder x"),
        ("Bash(uv:*)", "uv run intruder"),
        ("Bash(ip:*)", "ip netns exec a intruder"),
        ("Bash(gcc:*)", "gcc --prefix=. a.c"),
        ("Bash(mypy:*)", "mypy --python-executable intruder"),
    ],
)
def test_rule_that_says_more_does_not_permit_everything(rule: str, command: str) -> None:
    assert not permits(rule, command)


def test_program_without_a_shell_has_the_same_rules() -> None:
    rule = read_rule("Run(git:*)")

    assert rule.permits(Call("Run", Argv(("git", "log", "a;b", "$(x)"))))
    assert not rule.permits(Call("Run", Argv(("git", "-c", "alias.x=!y", "x"))))
    assert not rule.permits(Call("Run", Argv(("gitx",))))
    assert not rule.permits(Call("Run", Argv(())))
    assert rule.touches(Call("Run", Argv(()))) is Touch.NO
    assert rule.touches(Call("Run", Argv(("git", "log")))) is Touch.YES
    assert not rule.permits(Call("Bash", Shell("git log")))


def test_nobody_counts_on_a_verb_behind_more_options_than_anybody_writes() -> None:
    assert touch("Bash(git push:*)", "git " + "-a " * 50 + "push") is Touch.YES
    assert touch("Bash(git push:*)", "git " + "-a " * 5000 + "pull") is Touch.UNSURE
    assert touch("Bash(git push:*)", "env " + "git -a " * 5000 + "pull") is Touch.UNSURE

"""Programs that start other programs when their arguments say so.

A rule that allows `find` does not allow what stands behind `find -exec`. Which arguments mean
that is known here for the programs in common use. Of build tools (make, cargo, npm run) it is not:
they do what the workspace says, and whoever allows them allows that. A sandbox is what bounds a
program that is not known here.
"""

import re
from collections.abc import Callable, Sequence


class Options:
    """Options to look for, as they can be written: with a value, in a cluster, shortened."""

    def __init__(self, *options: str) -> None:
        long = [option for option in options if option.startswith("--")]
        short = [option for option in options if len(option) == 2]
        middle = {option for option in options if option not in long and option not in short}
        self._names = middle | {f"-{option}" for option in middle}
        self._names |= {option[:end] for option in long for end in range(3, len(option) + 1)}
        self._letters = frozenset(option[1] for option in short)

    def has(self, word: str) -> bool:
        """Whether a word is one of them: `-x` also inside `-vx`, `--long` also as `--lo=1`."""
        if not word.startswith("-"):
            return False
        if word.partition("=")[0] in self._names:
            return True
        return word[1:2] != "-" and not self._letters.isdisjoint(word[1:])


NONE = Options()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# These run what they are given, whatever stands in front of it.
LAUNCHERS = _words(
    """
    . alias at autossh batch builtin bunx busybox bwrap capsh catchsegv cgexec choom chpst chronic
    chroot chrt command compgen complete coproc coreutils crontab daemonize dbus-launch
    dbus-run-session dc direnv doas dumb-init eatmydata ed emacs enable entr env eval ex
    exec expect fakeroot faketime fc find2perl firejail flock fzf gdb gnuplot hash hyperfine
    ifne info ionice ld ldd less let linux32 linux64 lldb logsave ltrace m4 machinectl man
    mapfile mc memusage more most mysql nano nc ncat netcat nice nix-shell nodemon nohup npx
    nsenter numactl nvim osascript parallel pee perf pg pipx pkexec pnpx prlimit proot
    proxychains psql readarray reptyr rlwrap rsh run-parts runcon runuser scp screen script
    sem setarch setpriv setsid sftp sg slogin socat softlimit source sqlite3 ssh ssh-agent
    ssh-keygen sshpass start-stop-daemon stdbuf strace su sudo sudoedit systemd-run taskset
    telnet time timelimit timeout tini tmux torify torsocks toybox trap trickle tsocks
    unbuffer unshare uvx valgrind vi vidir view vim vipe visudo watch watchexec whiptail
    xargs xdg-open xinit xterm xvfb-run yarnpkg zrun
    """
)

_LOADERS = ("ld-linux", "ld-musl", "ld.so")  # which run the program in their first argument

# In what these are told anything can be said; a script, a module or a verb a rule may name.
INTERPRETERS = _words(
    """
    asdf awk bash bb bun bundle busybox-sh conda csh dash deno docker dotnet elixir erl fish
    flatpak gawk ghci groovy guile hatch ip irb java julia jython ksh kubectl lua luajit
    mamba mawk micromamba mise mksh nawk nerdctl nix node nodejs ocaml original-awk pdm perl
    php pipenv podman poetry pwsh pyenv pypy python pythonw r racket rbash rbenv rscript
    ruby rustup rye scala scheme sh tclsh tcsh uv wish yash zsh
    """
)

# Options that name a program to run, by program: `-x` also inside `-vx`, `--long` also shortened.
OPTIONS = {
    "ag": Options("--pager"),
    "apt": Options("-c", "-o", "--config-file", "--option"),
    "apt-get": Options("-c", "-o", "--config-file", "--option"),
    "cargo": Options("--config"),
    "cc": Options("-B", "-fplugin", "-specs", "-wrapper", "--prefix", "--specs"),
    "clang": Options("-B", "-fplugin", "-specs", "--prefix", "--specs"),
    "cmake": Options("-P", "-E"),
    "cpio": Options("--rsh-command"),
    "ctest": Options("-S"),
    "dpkg": Options("--post-invoke", "--pre-invoke", "--status-logger"),
    "fd": Options("-x", "-X", "--exec", "--exec-batch"),
    "fdfind": Options("-x", "-X", "--exec", "--exec-batch"),
    "g++": Options("-B", "-fplugin", "-specs", "-wrapper", "--prefix", "--specs"),
    "gcc": Options("-B", "-fplugin", "-specs", "-wrapper", "--prefix", "--specs"),
    "go": Options("-exec", "-toolexec", "-vettool"),
    "hg": Options("-e", "--config", "--remotecmd", "--ssh"),
    "install": Options("--strip-program"),
    "make": Options("--eval"),
    "mypy": Options("--python-executable"),
    "nmap": Options("--script"),
    "npm": Options("--script-shell", "--node-options"),
    "pip": Options("--python", "--editor"),
    "rg": Options("--pre", "--hostname-bin", "-z", "--search-zip"),
    "rsync": Options("-e", "--rsh", "--rsync-path"),
    "rustc": Options("-C", "--codegen"),
    "sort": Options("--compress-program"),
    "split": Options("--filter"),
    "svn": Options("--config-option", "--diff-cmd", "--diff3-cmd", "--editor-cmd", "--merge-cmd"),
    "tar": Options(
        *("-F", "-I", "--checkpoint-action", "--info-script", "--new-volume-script"),
        *("--rmt-command", "--rsh-command", "--to-command", "--use-compress-program"),
    ),
    "tcpdump": Options("-z"),
    "tshark": Options("-X"),
    "wget": Options("--use-askpass"),
    "yarn": Options("--script-shell"),
    "zip": Options("-T", "--test", "--unzip-command"),
}

# Words that are as good as such an option, by program.
WORDS = {
    "find": {
        *("-delete", "-exec", "-execdir", "-fls", "-fprint", "-fprint0", "-fprintf", "-ok"),
        "-okdir",
    },
    "gh": {"alias", "codespace", "cs", "ext", "extension", "extensions"},
    "npm": {"create", "edit", "exec", "explore", "init", "x"},
    "pnpm": {"create", "dlx", "exec"},
    "yarn": {"create", "dlx", "exec"},
}

_GIT_OPTIONS = Options(
    *("--config", "--config-env", "--exec", "--exec-path", "--ext-diff", "--extcmd"),
    *("--gpg-sign", "--open-files-in-pager", "--paginate", "--receive-pack"),
    *("--show-signature", "--template", "--textconv", "--upload-pack"),
)
# What git does by itself. Another word may be an alias, and an alias may be any program.
_GIT_COMMANDS = _words(
    """
    add annotate apply archive blame branch cat-file check-attr check-ignore cherry checkout
    clean clone commit count-objects describe diff diff-files diff-index diff-tree fetch
    for-each-ref format-patch fsck gc grep init log ls-files ls-remote ls-tree merge merge-base
    mv name-rev notes prune pull push range-diff reflog remote reset restore rev-list rev-parse
    revert rm shortlog show show-branch show-ref stash status switch symbolic-ref tag
    update-index version whatchanged worktree write-tree
    """
)
_GIT_SHORT = {
    "clone": Options("-c", "-u"),
    "commit": Options("-S"),
    "grep": Options("-O"),
    "merge": Options("-S"),
    "rebase": Options("-S", "-x"),
    "tag": Options("-s", "-u"),
}
_GIT_REMOTE = frozenset({"archive", "clone", "fetch", "ls-remote", "pull", "push", "remote"})
_SED_OPTIONS = {"-n", "-E", "-r", "-s", "-u", "-z", "-e", "--quiet", "--silent", "--expression"}
_SED_PLAIN = re.compile(r"(\d+|\$)?(,(\d+|\+\d+|\$))?[pdqQ=]?")
_VERSION = re.compile(r"[\d.-]+\Z")
_SED_FLAGS = re.compile("[gpiI0-9]*")


def starts_others(words: Sequence[str], vouched: int) -> bool:
    """Whether a command may start a program that the first `vouched` words do not name."""
    name = program_name(words[0])
    if name in LAUNCHERS or name.startswith(_LOADERS):
        return True
    if name in INTERPRETERS:
        return not _names_a_script(words[1:vouched])
    special = _SPECIAL.get(name)
    options, keywords = OPTIONS.get(name, NONE), WORDS.get(name, ())
    if special is None and options is NONE and not keywords:
        return False
    if any(_may_become(word, name) for word in words[1:] if "${CRED:" in word):
        return True
    if special is not None and special(words, vouched):
        return True
    if options is NONE and not keywords:
        return False
    return any(word in keywords or options.has(word) for word in words[max(vouched, 1) :])


def _may_become(word: str, program: str) -> bool:
    """Whether a credential in a word could make it an option, or part of a script."""
    before = word.partition("${CRED:")[0]
    return not before or program in {"sed", "tar"} or (before[0] == "-" and "=" not in before)


def program_name(word: str) -> str:
    """A program's name without its directory and its version: `/usr/bin/python3.11` is python."""
    name = word.rpartition("/")[2].lower()
    if name[-1:].isalpha() or name in LAUNCHERS:
        return name
    return _VERSION.sub("", name) or name


def _names_a_script(vouched: Sequence[str]) -> bool:
    """Whether a rule itself says which script or module an interpreter is given."""
    if not vouched:
        return False
    if vouched[0] == "-m":
        return len(vouched) > 1
    return not vouched[0].startswith("-")


def _git(words: Sequence[str], vouched: int) -> bool:
    command = words[1] if len(words) > 1 else "version"
    if vouched < 2 and command not in _GIT_COMMANDS and command != "--version":
        return True
    short = _GIT_SHORT.get(command, NONE)
    return any(
        ("::" in word and command in _GIT_REMOTE)  # TRANSPORT::ADDRESS starts that transport
        or "%G" in word  # a signature is verified by another program
        or _GIT_OPTIONS.has(word)
        or short.has(word)
        for word in words[max(vouched, 1) :]
    )


def _tar(words: Sequence[str], vouched: int) -> bool:
    """Beside its options: `HOST:FILE` is fetched by a remote shell, and `tar xIf` has no dash."""
    first = words[1] if len(words) > 1 else ""
    is_bundle = not first.startswith("-") and any(letter in first for letter in "FI")
    return is_bundle or any(":" in word for word in words[max(vouched, 1) :])


def _sed(words: Sequence[str], vouched: int) -> bool:
    """Everything but a search, a substitution or a line number can write files or run programs."""
    scripts: list[str] = []
    rest = list(words[1:])
    others: list[str] = []
    while rest:
        word = rest.pop(0)
        if word in {"-e", "--expression"}:
            scripts.append(rest.pop(0) if rest else "e")
        elif word.startswith("-") and len(word) > 1:
            if word not in _SED_OPTIONS:
                return True
        else:
            others.append(word)
    scripts = scripts or others[:1]
    return not all(map(_is_plain_sed, scripts))


def _is_plain_sed(script: str) -> bool:
    if _SED_PLAIN.fullmatch(script):
        return True
    if not re.match(r"s[^\w\s\\]", script) or "\\" in script or "\n" in script:
        return False
    parts = script.split(script[1])
    return len(parts) == 4 and _SED_FLAGS.fullmatch(parts[3]) is not None


_SPECIAL: dict[str, Callable[[Sequence[str], int], bool]] = {"git": _git, "sed": _sed, "tar": _tar}

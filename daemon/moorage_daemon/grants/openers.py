"""Programs that start other programs when their arguments say so.

A rule that allows `find` does not allow what stands behind `find -exec`. Which arguments mean
that is known here for the programs in common use. Of build tools (make, cargo, npm run) it is not:
they do what the workspace says, and whoever allows them allows that. A sandbox is what bounds a
program that is not known here.
"""

import re
from collections.abc import Callable, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# These run what they are given, whatever stands in front of it.
LAUNCHERS = _words(
    """
    . at autossh batch builtin bunx busybox bwrap capsh catchsegv cgexec choom chpst chronic
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
    "ag": {"--pager"},
    "apt": {"-c", "-o", "--config-file", "--option"},
    "apt-get": {"-c", "-o", "--config-file", "--option"},
    "cargo": {"--config"},
    "cc": {"-B", "-fplugin", "-specs", "-wrapper", "--prefix", "--specs"},
    "clang": {"-B", "-fplugin", "-specs", "--prefix", "--specs"},
    "cmake": {"-P", "-E"},
    "cpio": {"--rsh-command"},
    "ctest": {"-S"},
    "dpkg": {"--post-invoke", "--pre-invoke", "--status-logger"},
    "fd": {"-x", "-X", "--exec", "--exec-batch"},
    "fdfind": {"-x", "-X", "--exec", "--exec-batch"},
    "g++": {"-B", "-fplugin", "-specs", "-wrapper", "--prefix", "--specs"},
    "gcc": {"-B", "-fplugin", "-specs", "-wrapper", "--prefix", "--specs"},
    "go": {"-exec", "-toolexec", "-vettool"},
    "hg": {"-e", "--config", "--remotecmd", "--ssh"},
    "install": {"--strip-program"},
    "make": {"--eval"},
    "mypy": {"--python-executable"},
    "nmap": {"--script"},
    "npm": {"--script-shell", "--node-options"},
    "pip": {"--python", "--editor"},
    "rg": {"--pre", "--hostname-bin", "-z", "--search-zip"},
    "rsync": {"-e", "--rsh", "--rsync-path"},
    "rustc": {"-C", "--codegen"},
    "sort": {"--compress-program"},
    "split": {"--filter"},
    "svn": {"--config-option", "--diff-cmd", "--diff3-cmd", "--editor-cmd", "--merge-cmd"},
    "tar": {
        *("-F", "-I", "--checkpoint-action", "--info-script", "--new-volume-script"),
        *("--rmt-command", "--rsh-command", "--to-command", "--use-compress-program"),
    },
    "tcpdump": {"-z"},
    "tshark": {"-X"},
    "wget": {"--use-askpass"},
    "yarn": {"--script-shell"},
    "zip": {"-T", "--test", "--unzip-command"},
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

_GIT_OPTIONS = _words(
    """
    --config --config-env --exec --exec-path --ext-diff --extcmd --gpg-sign
    --open-files-in-pager --paginate --receive-pack --show-signature --template --textconv
    --upload-pack
    """
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
    "clone": "cu", "commit": "S", "grep": "O", "merge": "S", "rebase": "Sx", "tag": "su"
}  # fmt: skip
_GIT_REMOTE = frozenset({"archive", "clone", "fetch", "ls-remote", "pull", "push", "remote"})
_SED_OPTIONS = {"-n", "-E", "-r", "-s", "-u", "-z", "-e", "--quiet", "--silent", "--expression"}
_SED_PLAIN = re.compile(r"(\d+|\$)?(,(\d+|\+\d+|\$))?[pdqQ=]?")
_SED_FLAGS = re.compile("[gpiI0-9]*")


def starts_others(words: Sequence[str], vouched: int) -> bool:
    """Whether a command may start a program that the first `vouched` words do not name."""
    name = program_name(words[0])
    if name in LAUNCHERS or name.startswith(_LOADERS):
        return True
    if name in INTERPRETERS:
        return not _names_a_script(words[1:vouched])
    special = _SPECIAL.get(name)
    if special is not None and special(words, vouched):
        return True
    options, keywords = OPTIONS.get(name, ()), WORDS.get(name, ())
    return any(
        word in keywords or any(is_option(word, option) for option in options)
        for word in words[max(vouched, 1) :]
    )


def program_name(word: str) -> str:
    """A program's name without its directory and its version: `/usr/bin/python3.11` is python."""
    name = word.rpartition("/")[2].lower()
    return name if name in LAUNCHERS else re.sub(r"[\d.-]+\Z", "", name) or name


def is_option(word: str, option: str) -> bool:
    """Whether a word is that option, with a value or without, in a cluster or shortened."""
    if option.startswith("--"):
        given = word.partition("=")[0]
        return len(given) > 2 and option.startswith(given)
    if len(option) > 2:
        return word.partition("=")[0] in {option, "-" + option}
    return word.startswith("-") and not word.startswith("--") and option[1] in word[1:]


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
    return any(
        ("::" in word and command in _GIT_REMOTE)  # TRANSPORT::ADDRESS starts that transport
        or "%G" in word  # a signature is verified by another program
        or any(is_option(word, option) for option in _GIT_OPTIONS)
        or any(is_option(word, f"-{letter}") for letter in _GIT_SHORT.get(command, ""))
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

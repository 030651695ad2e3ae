"""The words of the commands about what is on record of a session, and the session as a file."""

from moorage_clients.cli.exits import Exit
from moorage_clients.cli.invocation import Artifacts, Export, Import, Usage
from moorage_clients.cli.parsing import (
    SESSION,
    WITH_DAEMON,
    WITH_SESSION,
    Grammar,
    all_session_ids,
    count,
    files,
    offers,
)


WITH_RECORD = WITH_SESSION[:-1]  # of a killed session too


def add_record_commands(grammar: Grammar) -> None:
    """Add them."""
    for add in (_usage, _artifacts, _export, _import):
        add(grammar)


def _usage(grammar: Grammar) -> None:
    parser = grammar.command(
        "usage", "say what a session took: context, tokens, cost",
        lambda found: Usage(found.session),
        about="The cost counts what has a price under [providers.NAME.prices] in the settings.",
        examples=("moorage usage", "moorage usage k3f2 --json | jq .cost.amount"),
        exits=WITH_RECORD,
    )  # fmt: skip
    offers(
        parser.add_argument("session", metavar="SESSION", nargs="?", help=SESSION),
        all_session_ids,
    )


def _artifacts(grammar: Grammar) -> None:
    parser = grammar.command(
        "artifacts", "list what the turns of a session made or were given, or print one of it",
        lambda found: Artifacts(found.session, found.get),
        about="What a tool says at length is kept whole; its call shows the two ends of it.",
        examples=("moorage artifacts", "moorage artifacts k3f2 --get 17 > output.txt"),
        exits=WITH_RECORD,
    )  # fmt: skip
    offers(
        parser.add_argument("session", metavar="SESSION", nargs="?", help=SESSION),
        all_session_ids,
    )
    parser.add_argument("--get", metavar="SEQ", type=count,
                        help="print the bytes of the one with this number")  # fmt: skip


def _export(grammar: Grammar) -> None:
    parser = grammar.command(
        "export", "write a session to a file that moorage import reads",
        lambda found: Export(found.session, found.output),
        about="All of it: log, artifacts and settings, as it is now, whatever happens meanwhile. "
        "The file is as private as the session is.",
        examples=("moorage export k3f2 > k3f2.jsonl", "moorage export k3f2 -o k3f2.jsonl"),
        exits=WITH_RECORD,
    )  # fmt: skip
    offers(
        parser.add_argument("session", metavar="SESSION", nargs="?", help=SESSION),
        all_session_ids,
    )
    output = parser.add_argument("-o", "--output", metavar="FILE",
                                 help="a new file, for you alone (default: stdout)")  # fmt: skip
    offers(output, files)


def _import(grammar: Grammar) -> None:
    parser = grammar.command(
        "import", "make a session of a file that moorage export wrote, and print its id",
        lambda found: Import(found.file, found.keep_id, found.a3s, found.keep_allowed),
        about="It is yours and has a new id. Nothing is overwritten, and nothing that the file "
        "says was allowed is allowed here, unless --keep-allowed is given. A file that is wrong in "
        "any line leaves nothing.",
        examples=("moorage import k3f2.jsonl",
                  "ssh HOST moorage export k3f2 | moorage import -",
                  "moorage import ~/.a3s/sessions --a3s session-1"),
        exits=(*WITH_DAEMON,),
        means={Exit.FAILED: "the file is wrong, which is said with its line, or was refused"},
    )  # fmt: skip
    offers(parser.add_argument("file", metavar="FILE", help="the file, - is stdin"), files)
    parser.add_argument("--keep-id", action="store_true",
                        help="keep the session's own id, if that is free")  # fmt: skip
    parser.add_argument(
        "--keep-allowed",
        action="store_true",
        help="take over its rules by which tools may act unasked",
    )
    parser.add_argument("--a3s", metavar="ID",
                        help="FILE is a directory as a3s left it: that session of it")  # fmt: skip

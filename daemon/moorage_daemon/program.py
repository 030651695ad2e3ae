"""The program `mooraged`: its command line, its signals and its last words."""

import argparse
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial

import msgspec
import trio

from moorage_daemon.app import (
    App,
    AppError,
    open_app,
    open_app_in_memory,
    open_conversation,
    open_listeners,
)
from moorage_daemon.log_lines import LOG_FORMAT, LogLines
from moorage_daemon.settings import Chosen, Flags, Settings, SettingsError, choose_settings
from moorage_daemon.statedir import AlreadyRunning, StateDir, StateDirError, open_state_dir
from moorage_daemon.store.port import StoreError
from moorage_daemon.transports.gate import PATH
from moorage_daemon.transports.stdio import open_stdio
from moorage_protocol import __version__


EPILOG = """\
examples:
  mooraged                                  run with the usual directories
  mooraged --state-dir /tmp/try             a daemon of its own, apart from the usual one
  mooraged --websocket 127.0.0.1:7777       listen on a fixed port
  mooraged --no-websocket                   the unix socket only
  mooraged --stdio                          an agent program for one editor, nothing kept
  mooraged --check-config --config FILE     whether a daemon would start with these settings

When it listens it prints one line of JSON to standard output; its log goes to standard error.
SIGTERM and SIGINT stop it: turns are cancelled and recorded, clients told. A second one stops
it now.

exit codes: 0 stopped as asked, 1 broken, 2 wrong usage or settings, 3 already running
"""

COLLECT_AFTER = 50_000  # objects; a pause every few seconds under load, not every few ms


def main(argv: Sequence[str] | None = None) -> None:
    """Run the daemon; ends the process."""
    _hold_standard_descriptors()
    _leave_no_core()
    arguments = _parser().parse_args(argv)
    _log_to_stderr(arguments.verbose)
    gc.set_threshold(COLLECT_AFTER, 20, 20)  # thousands of sessions are taken up by the start
    try:
        code = _run(arguments)
    except Exception as error:  # noqa: BLE001 - the program's last words
        code = _complain(_sole(error))
    sys.exit(code)


def _hold_standard_descriptors() -> None:
    """Fill those that were closed: a socket or the database would get their numbers, and with
    them what is written to standard output or error."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if not sys.stderr:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _leave_no_core() -> None:
    """A core of it would hold keys, tokens and secrets of prompts; who wants one raises the limit
    again, as a tool may."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def _sole(error: Exception) -> Exception:
    """The one error inside the groups that nurseries put around it."""
    inner: tuple[Exception, ...] = getattr(error, "exceptions", ())
    return _sole(inner[0]) if len(inner) == 1 else error


def _complain(error: Exception) -> int:
    """Say in one line what a person can mend, and with all detail what is a bug; the exit code."""
    match error:
        case SettingsError():
            code = 2
        case AlreadyRunning():
            code = 3
        case StateDirError() | StoreError() | OSError():
            code = 1
        case _:
            logging.getLogger(__name__).critical("the daemon broke", exc_info=error)
            return 1
    print(f"mooraged: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mooraged",
        description="The moorage daemon: keeps agent sessions while terminals come and go.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="settings, TOML (MOORAGE_CONFIG)")
    parser.add_argument("--state-dir", metavar="DIR", help="where it lives (MOORAGE_STATE_DIR)")
    listen = parser.add_mutually_exclusive_group()
    listen.add_argument("--websocket", metavar="HOST:PORT", help="loopback only; port 0 is any")
    listen.add_argument(
        "--no-websocket", dest="websocket", action="store_const", const="", help="unix socket only"
    )
    parser.add_argument(
        "--stdio",
        action="store_true",
        help="serve standard input and output until they end: alone and in memory, or in "
        "--state-dir and beside the commands that are told of it",
    )
    parser.add_argument("--verbose", action="store_true", help="log more")
    instead = parser.add_argument_group("instead of a start").add_mutually_exclusive_group()
    for flag, question, said in (
        ("--check-config", "start", "say whether a daemon would start with these settings"),
        ("--show-config", "settings", "print the settings in effect, as JSON"),
        ("--check-system", "system", "try what a daemon needs, and print it as JSON"),
    ):
        instead.add_argument(flag, dest="question", action="store_const", const=question, help=said)
    parser.add_argument("--version", action="version", version=f"mooraged {__version__}")
    return parser


def _log_to_stderr(verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLines(LOG_FORMAT))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    logging.getLogger("websockets").setLevel(logging.WARNING)


def _run(arguments: argparse.Namespace) -> int:
    flags = Flags(arguments.config, arguments.state_dir, arguments.websocket)
    choose = partial(choose_settings, flags)
    if arguments.question is not None:
        print(_answer(arguments.question, choose))
        return 0
    chosen = choose()
    try:
        _start(arguments, chosen.settings)
    except* AppError as problem:
        raise SettingsError(chosen.source, str(_sole(problem))) from problem
    return 0


def _start(arguments: argparse.Namespace, settings: Settings) -> None:
    """Run the daemon to its end."""
    if arguments.stdio and arguments.state_dir is None:
        app = open_app_in_memory(settings, abandon=_leave)
        trio.run(_serve_stdio, settings, app, _leave)
        return
    with open_state_dir(settings.state_dir) as state:
        if arguments.stdio:
            if arguments.websocket is None:  # an editor's own program opens no port unasked
                settings = replace(settings, websocket=None)
            trio.run(_serve_stdio_and_others, settings, state)
        else:
            trio.run(_serve, settings, state)


def _answer(question: str, choose: Callable[[], Chosen]) -> str:
    """What is asked instead of a start; raises what the start would."""
    # Here and not above: a daemon that starts is asked nothing.
    from moorage_daemon.checkup import check_settings, check_up
    from moorage_daemon.settings_report import settings_report

    if question == "system":
        return msgspec.json.encode(trio.run(check_up, choose)).decode()
    chosen = trio.run(check_settings, choose)
    if question == "settings":
        return msgspec.json.encode(settings_report(chosen)).decode()
    return f"In order: {chosen.source}"


async def _serve_stdio_and_others(settings: Settings, state: StateDir) -> None:
    """Serve standard input, and beside it this user's commands: the directory is this daemon's."""
    leave = partial(_leave, state=state)
    opening = _listening(settings, state, open_app(settings, state, abandon=leave))
    await _serve_stdio(settings, opening, leave)


@asynccontextmanager
async def _listening(
    settings: Settings, state: StateDir, opening: AbstractAsyncContextManager[App]
) -> AsyncGenerator[App]:
    async with opening as app, open_listeners(app, settings, state):
        _publish(settings, state, app.websocket_port)
        yield app


async def _serve_stdio(
    settings: Settings, opening: AbstractAsyncContextManager[App], leave: Callable[[int], None]
) -> None:
    """Serve standard input until it ends or a signal comes."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            # The output is taken over first: what goes wrong in the opening is not said there.
            async with open_stdio() as transport, opening as app:
                async with open_conversation(app, settings, transport):
                    nursery.start_soon(_obey, signals, transport.over, leave)
                    await transport.over.wait()
            nursery.cancel_scope.cancel()


async def _serve(settings: Settings, state: StateDir) -> None:
    leave, stop = partial(_leave, state=state), trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            async with open_app(settings, state, abandon=leave) as app:
                async with open_listeners(app, settings, state):
                    gc.freeze()  # what is there by now stays: looking through it costs latency
                    _announce(settings, state, app.websocket_port)
                    nursery.start_soon(_obey, signals, stop, leave)
                    await stop.wait()
            nursery.cancel_scope.cancel()


async def _obey(
    signals: AsyncIterator[int], stop: trio.Event, leave: Callable[[int], None]
) -> None:
    """Stop at the first signal, and leave at once at the second."""
    await anext(signals)
    logging.getLogger(__name__).info("stopping")
    stop.set()
    await anext(signals)
    leave(1)


def _announce(settings: Settings, state: StateDir, port: int | None) -> None:
    websocket, unix = _publish(settings, state, port)
    line = {"ready": True, "pid": os.getpid(), "websocket": websocket, "unix": unix}
    print(json.dumps(line), flush=True)


def _publish(settings: Settings, state: StateDir, port: int | None) -> tuple[str | None, str]:
    """Tell this user's programs where the daemon listens; gives both addresses."""
    websocket = None
    if port is not None and settings.websocket is not None:
        host = settings.websocket.host
        websocket = f"ws://{f'[{host}]' if ':' in host else host}:{port}{PATH}"
    unix = str(state.socket_path)
    state.publish(os.getpid(), websocket, unix)
    return websocket, unix


def _leave(code: int = 0, *, state: StateDir | None = None) -> None:
    """End the process without waiting for anything; the lock ends with it."""
    if state is not None:
        state.withdraw()
    sys.stderr.flush()
    os._exit(code)

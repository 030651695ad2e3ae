"""How the daemon's log looks to its operator: one line a record, and no secret in it."""

import json
import logging

from moorage_daemon.scrubbing import fit_to_log


LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogLines(logging.Formatter):
    """One line a record, its fields behind the sentence; what follows is indented.

    A turn's secrets are taken out of what its own tasks log, whatever wrote it: an exception's text
    or a library's complaint may quote what it was given.
    """

    def format(self, record: logging.LogRecord) -> str:
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        text = fit_to_log(super().format(record))
        fields = f" {fit_to_log(json.dumps(extra, default=repr))}" if extra else ""
        first, *rest = text.split("\n")
        return "\n".join([first + fields, *(f"    {line}" for line in rest)])


_STANDARD = {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName"}

"""One JSON object a line, for machines that read logs."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Any

__all__ = ["JsonFormatter", "access_logger", "log_as_json"]

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

access_logger = logging.getLogger("hfvla.serve.http.access")
"""One line a request; what is known of it travels as `extra`."""


class JsonFormatter(logging.Formatter):
    """Writes a record as {"time", "level", "logger", "message", ...}, with whatever it was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _PLAIN and name not in line}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)  # ASCII: nothing of a request can break a line


def log_as_json() -> None:
    """Let every handler of hfvla's logger write JSON; a traceback is one line, too."""
    for handler in logging.getLogger("hfvla").handlers:
        handler.setFormatter(JsonFormatter())

"""Structured logs: one JSON object per line, with the id of the current request."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

current_request: ContextVar[str] = ContextVar("current_request", default="")
"""The id of the request that this task serves."""

_FIELDS: Final = "fields"


class JsonFormatter(logging.Formatter):
    """Format a record as one line of ASCII JSON; line breaks sent by a client are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current_request.get():
            document["request_id"] = current_request.get()
        document |= getattr(record, _FIELDS, {})
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document)


def with_fields(**fields: Any) -> dict[str, Any]:
    """Return the ``extra`` argument of a log call that adds fields to its line."""
    return {_FIELDS: fields}


def install(level: str) -> None:
    """Log everything in this process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(logging.getLevelNamesMapping()[level], logging.WARNING))

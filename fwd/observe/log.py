"""The log: structlog on stderr, one line an event; systemd's journal adds time and unit itself.

Call ``configure_log`` once, at the start of a process; libraries only call ``get_logger``.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

__all__ = ["LEVELS", "configure_log", "get_logger"]

LEVELS = ("debug", "info", "warning", "error")


def configure_log(
    level: str = "info", *, as_json: bool = False, stream: TextIO | None = None
) -> None:
    """Set up logging of this process.

    Args:
        level: one of ``LEVELS``; what is below is not even formatted.
        as_json: one JSON object a line instead of ``event key=value``.
        stream: where to; None = stderr.

    Raises:
        ValueError: for a level that is not one of ``LEVELS``.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is unknown; use one of {', '.join(LEVELS)}")
    out = stream or sys.stderr
    structlog.configure(
        processors=_processors(out, as_json=as_json),
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=stream is None,
    )


def get_logger(**context: object) -> FilteringBoundLogger:
    """Make a logger that adds ``context`` to every line."""
    return cast("FilteringBoundLogger", structlog.get_logger(**context))


def _processors(out: TextIO, *, as_json: bool) -> list[Processor]:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
    ]
    if "JOURNAL_STREAM" not in os.environ:
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    if as_json:
        return [*shared, structlog.processors.JSONRenderer()]
    if out.isatty() and "NO_COLOR" not in os.environ:
        shared.remove(structlog.processors.format_exc_info)
        return [*shared, structlog.dev.ConsoleRenderer()]
    keys = ["timestamp", "level", "event"]
    return [*shared, structlog.processors.KeyValueRenderer(key_order=keys, drop_missing=True)]

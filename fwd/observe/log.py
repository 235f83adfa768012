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
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

__all__ = ["LEVELS", "configure_log", "get_logger"]

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Of syslog, by level; the journal reads them as ``<N>`` at the start of a line (sd-daemon(3))."""

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
    journal = "JOURNAL_STREAM" in os.environ
    if not journal:
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    if as_json:
        json = structlog.processors.JSONRenderer()
        return [*shared, _with_priority(json) if journal else json]
    if out.isatty() and "NO_COLOR" not in os.environ:
        shared.remove(structlog.processors.format_exc_info)
        return [*shared, structlog.dev.ConsoleRenderer()]
    keys = ["timestamp", "level", "event"]
    pairs = structlog.processors.KeyValueRenderer(key_order=keys, drop_missing=True)
    return [*shared, _with_priority(pairs) if journal else pairs]


def _with_priority(render: Processor) -> Processor:
    """Let the journal know each line's level: `journalctl -p warning` asks for it."""

    def prefixed(logger: WrappedLogger, method: str, event: EventDict) -> str:
        priority = _PRIORITIES.get(str(event.get("level")), 6)
        return f"<{priority}>{render(logger, method, event)!s}"

    return prefixed

"""Logging for every process: structlog on stderr, because stdout is for results."""

import logging
import sys

import structlog
from structlog.typing import FilteringBoundLogger


def configure(level: str = "WARNING", *, as_json: bool = False) -> None:
    """Set up structlog and route the standard library's loggers (taskiq, nats) through the same level."""
    number = _structlog(level, as_json)
    # httpx logs one line per request: only when debugging
    logging.getLogger("httpx").setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))
    logging.basicConfig(stream=sys.stderr, level=number, format="%(levelname)s %(name)s %(message)s")


def configure_quietly(level: str = "WARNING", *, as_json: bool = False) -> None:
    """Set up structlog inside another program: its own logging setup stays, and nothing is written to stdout."""
    if not structlog.is_configured():
        _structlog(level, as_json)


def _structlog(level: str, as_json: bool) -> int:
    number = logging.getLevelNamesMapping().get(level.upper(), logging.WARNING)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    return number


def get(name: str) -> FilteringBoundLogger:
    """Return a logger bound to the name of a package."""
    logger: FilteringBoundLogger = structlog.get_logger(room=name)
    return logger

"""Logging for every process: structlog on stderr, so that stdout stays for answers."""

import logging
import sys

import structlog
from structlog.typing import FilteringBoundLogger


def configure(level: str = "WARNING", *, as_json: bool = False) -> None:
    """Set up structlog and route the standard library's loggers (taskiq, nats) through the same level."""
    number = _structlog(level, as_json)
    # one line per request of a provider is for those who debug
    logging.getLogger("httpx").setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))
    logging.basicConfig(stream=sys.stderr, level=number, format="%(levelname)s %(name)s %(message)s")


def configure_quietly(level: str = "WARNING", *, as_json: bool = False) -> None:
    """For a program that we are only a part of: what it has set up stays, and nothing is said on stdout."""
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
    """A logger bound to the room that speaks."""
    logger: FilteringBoundLogger = structlog.get_logger(room=name)
    return logger

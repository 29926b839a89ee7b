"""Packages that not every installation has: a missing one is named with the command that brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from evervec.errors import MissingExtraError


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Import inside this block what the extra `name` of pyproject.toml installs, for the feature `what`.

    Raises `MissingExtraError` for a package that is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "evervec"):
            raise  # a module of ours is no matter of what is installed
        raise MissingExtraError(what=what, package=package, extra=name) from None

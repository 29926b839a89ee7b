"""The command line with a database of its own, as the tests of the commands have it."""

from tests.cli.conftest import evervec

__all__ = ["evervec"]

"""`evervec version`: which Evervec this is."""

from importlib.metadata import version as installed

from evervec.cli.terminal import output
from evervec.cli.terminal.options import Json


def version(as_json: Json = False) -> None:
    """Print the version."""
    found = installed("evervec")
    output.document({"version": found}) if as_json else output.echo(f"evervec {found}")

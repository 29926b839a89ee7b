"""The entry point of the `evervec` command, and the last place where an error becomes a line and an exit code."""

import sys


def main() -> None:
    """Run the command of this process."""
    try:
        # Inside the `try`: loading everything takes a moment, in which a Ctrl-C is no reason for a traceback either.
        from evervec.cli.app import app
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        app(prog_name="evervec")
    except Exception as error:
        from evervec.cli.terminal.error_report import report

        sys.exit(report(error))

#!/usr/bin/env python
"""Fills every missing and every stale embedding: `evervec backfill` under the name that people know."""

import typer

from evervec.cli.commands.backfill import backfill

if __name__ == "__main__":
    typer.run(backfill)

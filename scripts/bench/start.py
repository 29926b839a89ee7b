"""How long a command takes from the shell: what every use of `evervec` pays before it does anything."""

import asyncio
import os
import statistics
import sys
from functools import partial
from pathlib import Path
from time import perf_counter

from scripts.bench import clock
from scripts.bench.report import Line, at_most
from scripts.bench.stack import Bench

HELP_SECONDS, STATUS_SECONDS = 0.4, 0.7
"""What is promised of an idle machine."""

EVERVEC = str(Path(sys.executable).with_name("evervec"))


async def run(bench: Bench) -> list[Line]:
    """`--help`, and `status` against servers that run, each beside a Python that does nothing."""
    async with bench.resources("start") as resources:
        environment = os.environ | {
            "EVERVEC_DATABASE_URL": resources.database.url,
            "EVERVEC_NATS_URL": bench.urls.nats_url,
        }
        command = partial(_run, environment)
        taken = await clock.rounds(
            3 if bench.quick else 9,
            {
                "python": partial(command, sys.executable, "-c", ""),
                "help": partial(command, EVERVEC, "--help"),
                "status": partial(command, EVERVEC, "status", "--json"),
            },
        )
    bare, helped, status = (statistics.median(taken[name]) for name in ("python", "help", "status"))
    return [
        Line("evervec --help, an empty Python", helped, bare, "s", helped / bare),
        Line("evervec --help, 0.4 s", helped, HELP_SECONDS, "s", helped / HELP_SECONDS, at_most(1)),
        Line("evervec status, evervec --help", status, helped, "s", status / helped),
        Line("evervec status, 0.7 s", status, STATUS_SECONDS, "s", status / STATUS_SECONDS, at_most(1)),
    ]


async def _run(environment: dict[str, str], *command: str) -> float:
    started = perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {said.decode()}")
    return perf_counter() - started

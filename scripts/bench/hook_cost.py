"""What the hooks cost an extraction: the same messages extracted with ringing for embeddings and without."""

import statistics
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from evervec.domain.message import IncomingMessage
from evervec.pipeline.extract import extract_knowledge
from evervec.pipeline.resources import Resources
from evervec.queue.publish import Doorbell
from evervec.sources.demo import demo_chat_path
from evervec.sources.telegram import read_export
from evervec.store import messages
from scripts.bench import clock
from scripts.bench.report import Line, below
from scripts.bench.stack import Bench, dataset

ROUNDS = 60


class TimedDoorbell(Doorbell):
    """The real doorbell, which counts its rings and the seconds they take."""

    rings = 0
    seconds = 0.0

    async def ring(self, task_name: str, **arguments: object) -> bool:
        """Ring, and look at the clock before and after."""
        started = perf_counter()
        heard = await super().ring(task_name, **arguments)
        TimedDoorbell.seconds += perf_counter() - started
        TimedDoorbell.rings += 1
        return heard

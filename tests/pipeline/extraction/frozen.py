"""A process that extracts one dataset and stops itself at a point: `python -m tests.pipeline.extraction.frozen DATASET POINT`.

It prints a line of JSON: what it counted, and how often it asked its extractor.
"""

import asyncio
import json
import os
import signal
import sys
from typing import Any
from uuid import UUID

from evervec import log
from evervec.extractors.local.extractor import LocalExtractor
from evervec.pipeline.extraction.extract import extract_knowledge
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.store import knowledge

POINTS = {"before it asks": (knowledge, "known"), "before it saves": (LocalExtractor, "extract")}
"""After the first call of which function the process stops."""


async def main(dataset_id: UUID, point: str) -> None:
    """Extract, and stop once on the way."""
    log.configure()
    owner, name = POINTS[point]
    asked = stopped = 0
    extract, function = LocalExtractor.extract, getattr(owner, name)

    async def counted(*values: Any) -> Any:
        nonlocal asked
        asked += 1
        return await extract(*values)

    async def stopping(*values: Any) -> Any:
        nonlocal stopped
        answer = await (counted if owner is LocalExtractor else function)(*values)
        stopped += 1
        if stopped == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return answer

    LocalExtractor.extract = counted  # type: ignore[method-assign]
    setattr(owner, name, stopping)
    async with open_runtime(Settings(), queue=False) as runtime:
        counts = await extract_knowledge(runtime.resources, dataset_id, hooks=False)
    sys.stdout.write(f"{json.dumps({**counts, 'asked': asked})}\n")


if __name__ == "__main__":
    asyncio.run(main(UUID(sys.argv[1]), sys.argv[2]))

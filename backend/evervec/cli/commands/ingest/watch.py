"""`evervec watch`: files are kept in the database as they are on the disk, until told to stop."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated, Any

import orjson
import typer

from evervec.cli.commands.ingest.files import MaxMb, Paths, chosen
from evervec.cli.commands.serve import until_told
from evervec.cli.render.runs import TOUCHED_DOCUMENTS, counted, show_run, show_skipped, touched
from evervec.cli.render.waiting import show_left
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Exclude, Include
from evervec.pipeline.indexing.plan import GONE
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import overview
from evervec.pipeline.status.outlook import left
from evervec.pipeline.status.runs import run_document
from evervec.runtime import Runtime
from evervec.store.datasets import DatasetRef
from evervec.store.runs import RunRecord

DOCUMENTS = {"new": "new", "changed": "changed", "moved": "moved", "deleted": "gone", "skipped": "skipped"}
CHUNKS = {"new": "new", "updated": "updated", "deleted": "gone", "skipped": "the same"}

Poll = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0.1,
        max=3600,
        help="Look by yourself, as network file systems need it; else the kernel tells.",
    ),
]
Lines = Annotated[bool, typer.Option("--json", metavar="", help="One JSON document a run on stdout, each on a line.")]


def watch(
    paths: Paths,
    project: Annotated[str, typer.Option(metavar="NAME", help="The project, made if it is new.")] = "files",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The dataset, made if it is new.")] = "documents",
    include: Include = None,
    exclude: Exclude = None,
    max_mb: MaxMb = None,
    poll: Poll = None,
    as_json: Lines = False,
) -> None:
    """Index files and folders, and from then on what changes in them, until Ctrl-C. A worker embeds it."""

    async def serve(runtime: Runtime, finish: asyncio.Event) -> None:
        from evervec.pipeline.ingest import watch as watching

        resources = runtime.resources
        files = chosen(resources.settings, paths, include, exclude, max_mb)
        with ExitStack() as first:
            step = first.enter_context(output.progress("files"))
            teller = _Teller(resources, first.close, as_json=as_json)
            await watching.watch(resources, project, dataset, files, teller, finish, poll=poll, progress=step)

    until_told(serve, None, takes_tasks=False)


class _Teller:
    """Says what was done: the first run in full, then a line for each that did something."""

    def __init__(self, resources: Resources, first_ends: Callable[[], None], *, as_json: bool) -> None:
        self._resources, self._first_ends, self._as_json = resources, first_ends, as_json
        self._started = False

    def indexed(self, run: RunRecord) -> None:
        found = run_document(run)
        # an editor's temporary file that came and went is nobody's news
        skipped = found["documents"]["skipped"] - found["skipped"].get(GONE, 0)
        if self._started and not touched(found, "documents", TOUCHED_DOCUMENTS) and not skipped:
            return
        if self._as_json:
            sys.stdout.write(orjson.dumps(found).decode() + "\n")
        elif self._started:
            output.say(_line(found))
            show_skipped(found)
        else:
            show_run(found)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        output.note(text)

    async def started(self, dataset: DatasetRef) -> None:
        self._started = True
        self._first_ends()
        waiting = await left(self._resources, [dataset])
        show_left(waiting)
        if not waiting.pending:
            await self._say_who_embeds()
        output.note("Watching. Ctrl-C finishes what runs and stops.")

    async def _say_who_embeds(self) -> None:
        """Nothing waits now, but what changes will."""
        queue = await overview.queue(self._resources)
        if queue.get("worker_listens"):
            return
        reason = queue.get("reason") or "No worker is running: start one with `evervec up` or `evervec worker`."
        output.note(f"{reason} Until then what changes is kept, and not embedded.")


def _line(found: dict[str, Any]) -> str:
    """`3 changed, 1 gone: 2 chunks new, 1 updated, 98 the same`."""
    documents = [f"{found['documents'][name]:,} {word}" for name, word in DOCUMENTS.items() if found["documents"][name]]
    first, *others = [(found["chunks"][name], word) for name, word in CHUNKS.items() if found["chunks"][name]] or [
        (0, "new")
    ]
    chunks = [f"{counted(first[0], 'chunk')} {first[1]}", *(f"{count:,} {word}" for count, word in others)]
    return f"{', '.join(documents)}: {', '.join(chunks)}"

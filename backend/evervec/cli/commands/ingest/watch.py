"""`evervec watch`: keep the documents of files equal to the files, until a signal."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Annotated

import typer

from evervec.cli.commands.ingest.files import MaxMb, Paths, chosen
from evervec.cli.commands.serve import serve_until_signal
from evervec.cli.render.pending import show_pending_rows
from evervec.cli.render.runs import counted, show_run, show_skipped
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Exclude, Include
from evervec.pipeline.indexing.plan import GONE
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import overview
from evervec.pipeline.status.pending import pending_rows
from evervec.pipeline.status.run_report import ChunkCounts, DocumentCounts, RunReport, run_report
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
        help="Poll the files, as network file systems need it; else the kernel reports changes.",
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
            printer = _Printer(resources, first.close, as_json=as_json)
            await watching.watch(resources, project, dataset, files, printer, finish, poll=poll, progress=step)

    serve_until_signal(serve, None, takes_tasks=False)


class _Printer:
    """What prints the runs: the first one in full, then a line for each that changed something."""

    def __init__(self, resources: Resources, first_ends: Callable[[], None], *, as_json: bool) -> None:
        self._resources, self._first_ends, self._as_json = resources, first_ends, as_json
        self._started = False

    def indexed(self, run: RunRecord) -> None:
        found = run_report(run)
        # an editor's temporary file that came and went is not worth a line
        skipped = found.documents.skipped - found.skipped.get(GONE, 0)
        if self._started and not found.documents.written and not skipped:
            return
        if self._as_json:
            output.document(found, on_one_line=True)
        elif self._started:
            output.echo(_line(found))
            show_skipped(found)
        else:
            show_run(found)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        output.info(text)

    async def started(self, dataset: DatasetRef) -> None:
        self._started = True
        self._first_ends()
        waiting = await pending_rows(self._resources, [dataset])
        show_pending_rows(waiting)
        if not waiting.pending:
            await self._print_who_embeds()
        output.info("Watching. Ctrl-C finishes what runs and stops.")

    async def _print_who_embeds(self) -> None:
        """Print whether a worker listens: nothing waits now, but what changes will."""
        queue = await overview.queue(self._resources)
        if queue.worker_listens:
            return
        reason = queue.reason or "No worker is running: start one with `evervec up` or `evervec worker`."
        output.info(f"{reason} Until then what changes is stored, and not embedded.")


def _line(found: RunReport) -> str:
    """Return a line like `3 changed, 1 gone: 2 chunks new, 1 updated, 98 the same`."""
    documents = [f"{count:,} {word}" for count, word in _counts(found.documents, DOCUMENTS)]
    first, *others = _counts(found.chunks, CHUNKS) or [(0, "new")]
    chunks = [f"{counted(first[0], 'chunk')} {first[1]}", *(f"{count:,} {word}" for count, word in others)]
    return f"{', '.join(documents)}: {', '.join(chunks)}"


def _counts(of: DocumentCounts | ChunkCounts, words: Mapping[str, str]) -> list[tuple[int, str]]:
    return [(getattr(of, name), word) for name, word in words.items() if getattr(of, name)]

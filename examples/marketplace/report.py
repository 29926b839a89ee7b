"""What the story comes to: a document for programs, and words and a table for people; nothing happens here."""

from collections.abc import Sequence
from typing import Any

from evervec.cli.terminal import output
from evervec.pipeline.search.answer import SearchAnswer
from evervec.pipeline.status.run_report import RunReport, run_report
from examples.marketplace.story import BrokenSync, Due, Step, Uris, Withdrawal

COLUMNS = (
    ("step", 12), ("records", 7), ("new", 5), ("upd", 3), ("same", 5), ("gone", 4), ("texts", 5), ("req", 3), ("tokens", 6),
    ("sec", 5), ("cost", 8), ("saved", 6),
)  # fmt: skip
"""What the table shows and how wide: 80 columns together."""


class Report:
    """Takes down what happens, step by step; `aloud` says it at once. `price` is in dollars per million tokens."""

    def __init__(self, price: float, *, aloud: bool) -> None:
        self._price, self._aloud = price, aloud
        self._steps: list[dict[str, Any]] = []
        self._searches: list[dict[str, Any]] = []
        self.document: dict[str, Any] = {
            "usd_per_million_tokens": price,
            "steps": self._steps,
            "searches": self._searches,
        }

    def opened(self, rows: int) -> None:
        """Report that the shop is filled."""
        self.document["rows"] = rows
        self._say(
            "A shop with two sellers: products, orders, stocks, reviews and sales",
            f"{rows:,} rows; orders older than 90 days stay out of the index",
        )

    def step(self, step: Step, title: str) -> None:
        """Report runs that are done."""
        found = step_document(step, self._price)
        self._steps.append(found)
        by_table = ", ".join(f"{len(ids)} {table}" for table, ids in step.synced.get("changed_ids", {}).items())
        synced = [f"synced in {step.sync_seconds:.2f} s: {by_table}"] if by_table else []
        warned = [f"warning: {line}" for line in step.synced.get("warnings", ())]
        sent = f"indexed in {found['seconds']:.2f} s: {found['texts_sent']:,} texts sent for {found['full_texts']:,} chunks"
        self._say(title, *synced, *warned, sent)

    def broken(self, broken: BrokenSync) -> None:
        """Report a sync that failed."""
        self.document["broken_sync"] = broken._asdict()
        self._say(
            "A day passes, but its sync breaks off half-way",
            broken.error,
            f"{broken.rows_written} rows were written by then, {broken.runs_triggered} runs were triggered, "
            f"the cursor {'MOVED' if broken.cursor_moved else 'stayed'}",
        )

    def withdrawal(self, found: Withdrawal) -> None:
        """Rows vanished from the shop, and their chunks after them."""
        self.document["withdrawal"] = {
            "withdrawn": _by_seller(found.withdrawn),
            "seen_by_sync": found.seen_by_sync,
            "still_indexed": found.still_indexed,
            "removed": _by_seller(found.removed),
            "added": _by_seller(found.added),
        }
        gone = [uri for seller in sorted(found.withdrawn) for uri in sorted(found.withdrawn[seller])]
        self._say(
            "Products and orders vanish from the shop; a sync can not see that",
            ", ".join(gone),
            f"a sync finds {found.seen_by_sync} changes; {found.still_indexed} of these {len(gone)} records are still indexed",
        )
        exact = found.removed == found.withdrawn and not any(found.added.values())
        self.step(found.step, f"The weekly full rebuild removes {'exactly them' if exact else 'OTHER RECORDS'}")

    def schedule(self, due: Sequence[Due]) -> None:
        """Report the schedule."""
        self.document["schedule"] = [one._asdict() for one in due]
        self._say("What the scheduler of `evervec up` sends", *(
            f"{one.task:<24} {one.cron:<10} next {one.next:%A %Y-%m-%d %H:%M %Z}" for one in due if one.next is not None
        ))  # fmt: skip

    def search(self, seller: str, question: str, answer: SearchAnswer, told: str | None = None) -> None:
        """Report a search of one seller's dataset. `told` is what was written a moment ago and should come first."""
        hits = [{"dataset": hit.dataset, "score": round(hit.score, 3), "text": hit.text} for hit in answer.hits]
        self._searches.append({"dataset": seller, "question": question, "told": told, "hits": hits})
        lines = [f"{hit.score:.2f}  {hit.dataset:<5}  {output.shorten(hit.text, taken=15)}" for hit in answer.hits]
        self._say(f"“{question}”, asked of {seller}", *lines)

    def table(self) -> None:
        """All steps beside each other."""
        first, delta = self._steps[0], self._steps[1]
        self._say(f"What it came to, at ${self._price:g} per million tokens")
        if not self._aloud:
            return
        for cells in ([name for name, _ in COLUMNS], *map(_cells, self._steps)):
            output.echo(_line(cells))
        output.echo()
        output.echo(
            f"The delta sent {first['texts_sent'] / delta['texts_sent']:.1f}× fewer texts than the first run and took "
            f"{first['seconds'] / delta['seconds']:.1f}× less time. Seconds go from the first run's start to the last "
            "one's end, with both sellers at work beside each other. The local model costs nothing: the cost is what a "
            "provider at that price would take.",
            style="dim",
        )

    def _say(self, title: str, *lines: str) -> None:
        if self._aloud:
            output.echo()
            output.echo(title, style="bold cyan")
            for line in lines:
                output.echo(line, indent=2)


def step_document(step: Step, price: float) -> dict[str, Any]:
    """Return the sums of a step's runs; `saved_share` is the part of all chunks that was not sent."""
    found = [run_report(run) for run in step.runs]
    started = [run.started_at for run in step.runs if run.started_at is not None]
    ended = [run.finished_at for run in step.runs if run.finished_at is not None]
    records, tokens = _together(found, "documents"), _sum(found, "tokens")
    sent, full = _sum(found, "texts_sent"), sum(one.full.texts for one in found if one.full is not None)
    return {
        "step": step.name,
        "records": {"looked_at": sum(records.values()), **records},
        "chunks": _together(found, "chunks"),
        "texts_sent": sent,
        "texts_reused": _sum(found, "embeddings_reused"),
        "requests": _sum(found, "requests"),
        "tokens": tokens,
        "cost_usd": tokens * price / 1_000_000,
        "full_texts": full,
        "saved_share": round(1 - sent / full, 4),
        "sync_seconds": round(step.sync_seconds, 3),
        "seconds": round((max(ended) - min(started)).total_seconds(), 3),
        "changed_ids": step.synced.get("changed_ids", {}),
        "runs": found,
    }


def _sum(found: Sequence[RunReport], name: str) -> int:
    return sum(getattr(one, name) for one in found)


def _together(found: Sequence[RunReport], what: str) -> dict[str, int]:
    counts = [vars(getattr(one, what)) for one in found]
    return {name: sum(one[name] for one in counts) for name in counts[0]}


def _by_seller(uris: Uris) -> dict[str, list[str]]:
    return {seller: sorted(found) for seller, found in sorted(uris.items())}


def _cells(step: dict[str, Any]) -> list[str]:
    chunks = step["chunks"]
    counted = [step["records"]["looked_at"], chunks["new"], chunks["updated"], chunks["skipped"], chunks["deleted"]]
    counted += [step["texts_sent"], step["requests"], step["tokens"]]
    money, share = f"${step['cost_usd']:.5f}", f"{step['saved_share']:.1%}"
    return [step["step"], *map(str, counted), f"{step['seconds']:.2f}", money, share]


def _line(cells: Sequence[str]) -> str:
    first, *others = zip(cells, (width for _, width in COLUMNS), strict=True)
    return " ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)])

"""Index runs for people: what became of documents and chunks, what was sent and saved, how long it took."""

from evervec.cli.terminal import output
from evervec.errors import Refused
from evervec.pipeline.status.run_report import RunReport
from evervec.sources.files.file_uris import path_of
from evervec.sources.files.listing import SkipReason
from evervec.store.runs import RunSeconds

EXAMPLES_SHOWN = 10
STAGES = ("list", "read", "chunk", "write", "embed")
UNKNOWN = "–"


def show_run(found: RunReport, *, dry: bool = False) -> None:
    """Print one run; with `dry` one that was only planned."""
    for line in (_documents(found), _chunks(found), _would_send(found) if dry else _texts(found)):
        output.echo(line)
    output.echo(f"in {found.seconds.total:.1f} s ({_stages(found.seconds)})")
    show_skipped(found)


def show_skipped(found: RunReport) -> None:
    """Print what has no document though it might have one, and why: the first ones by name."""
    listed = [one for one in found.examples if one.reason != SkipReason.UNKNOWN_FORMAT][:EXAMPLES_SHOWN]
    for one in listed:
        detail = f" ({one.detail})" if one.detail else ""
        output.info(f"skipped {location(one.uri)}: {one.reason}{detail}", indent=2)
    more = found.documents.skipped - found.skipped.get(SkipReason.UNKNOWN_FORMAT, 0) - len(listed)
    if more > 0:
        output.info(f"… and {more:,} more", indent=2)


def location(uri: str) -> str:
    """Return the path of a file, or the uri of a record."""
    try:
        return str(path_of(uri)).replace("\n", "\N{REPLACEMENT CHARACTER}")
    except Refused:
        return uri


def _documents(found: RunReport) -> str:
    of = found.documents
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.skipped.items()))
    skipped = f"{of.skipped:,} skipped" + (f" ({reasons})" if reasons else "")
    return (
        f"{counted(of.kept, 'document')}: {of.new:,} new, {of.changed:,} changed, {of.moved:,} moved, "
        f"{of.unchanged:,} the same, {of.deleted:,} gone, {skipped}"
    )


def _chunks(found: RunReport) -> str:
    of = found.chunks
    return (
        f"{counted(of.kept, 'chunk')}: {of.new:,} new, {of.updated:,} updated, {of.skipped:,} the same, "
        f"{of.deleted:,} gone"
    )


def _texts(found: RunReport) -> str:
    if found.lane == "batch":
        return "Nothing sent: it waits for a batch job"
    if not found.embeds:
        return "Nothing sent: the workers embed it"
    full = found.full
    dollars = "" if not found.cost_usd else f" for {money(found.cost_usd)}"
    whole = "" if full is None else f"; a full run would send {full.texts:,}"
    whole += f" for {money(full.cost_usd)}" if full is not None and full.cost_usd else ""
    return (
        f"{counted(found.texts_sent, 'text')} sent in {counted(found.requests, 'request')} "
        f"({found.tokens:,} tokens){dollars}, {found.embeddings_reused:,} reused{whole}"
    )


def _would_send(found: RunReport) -> str:
    dollars = "" if not found.cost_usd else f", {money(found.cost_usd)}"
    return f"{counted(found.texts_sent, 'text')} to be sent at most ({found.tokens:,} tokens{dollars})"


def _stages(seconds: RunSeconds) -> str:
    return ", ".join(f"{stage} {getattr(seconds, stage):.1f}" for stage in STAGES)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 text`, `2 texts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def money(dollars: float | None) -> str:
    """Return dollars, or a dash where the price is not known."""
    if dollars is None:
        return UNKNOWN
    return f"${dollars:,.4f}" if dollars else "$0"

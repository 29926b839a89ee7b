"""How index runs are shown to people: what became of documents and chunks, what was sent and saved, how long it took."""

from collections.abc import Sequence
from typing import Any

from evervec.cli.terminal import output
from evervec.errors import Refused
from evervec.sources.files.file_uris import path_of
from evervec.sources.files.listing import SkipReason

EXAMPLES_SHOWN = 10
STAGES = ("list", "read", "chunk", "write", "embed")
UNKNOWN = "–"


def show_run(found: dict[str, Any], *, dry: bool = False) -> None:
    """One run, as `run_document` tells it; with `dry` one that has not been."""
    for line in (_documents(found), _chunks(found), _would_send(found) if dry else _texts(found)):
        output.say(line)
    output.say(f"in {found['seconds']['total']:.1f} s ({_stages(found['seconds'])})")
    show_skipped(found)


def show_skipped(found: dict[str, Any]) -> None:
    """What has no document though it might have one, and why: the first ones by name."""
    shown = [one for one in found["examples"] if one["reason"] != SkipReason.UNKNOWN_FORMAT][:EXAMPLES_SHOWN]
    for one in shown:
        detail = f" ({one['detail']})" if one["detail"] else ""
        output.note(f"skipped {place(one['uri'])}: {one['reason']}{detail}", indent=2)
    more = found["documents"]["skipped"] - found["skipped"].get(SkipReason.UNKNOWN_FORMAT, 0) - len(shown)
    if more > 0:
        output.note(f"… and {more:,} more", indent=2)


def place(uri: str) -> str:
    """A file by its path, a record by its uri."""
    try:
        return str(path_of(uri)).replace("\n", "\N{REPLACEMENT CHARACTER}")
    except Refused:
        return uri


def _documents(found: dict[str, Any]) -> str:
    of = found["documents"]
    total = of["new"] + of["changed"] + of["moved"] + of["unchanged"]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found["skipped"].items()))
    skipped = f"{of['skipped']:,} skipped" + (f" ({reasons})" if reasons else "")
    return (
        f"{counted(total, 'document')}: {of['new']:,} new, {of['changed']:,} changed, {of['moved']:,} moved, "
        f"{of['unchanged']:,} the same, {of['deleted']:,} gone, {skipped}"
    )


def _chunks(found: dict[str, Any]) -> str:
    of = found["chunks"]
    total = of["new"] + of["updated"] + of["skipped"]
    return (
        f"{counted(total, 'chunk')}: {of['new']:,} new, {of['updated']:,} updated, {of['skipped']:,} the same, "
        f"{of['deleted']:,} gone"
    )


def _texts(found: dict[str, Any]) -> str:
    if found["lane"] == "batch":
        return "Nothing sent: it waits for a batch job"
    if not found["embeds"]:
        return "Nothing sent: the workers embed it"
    full = found["full"]
    dollars = "" if not found["cost_usd"] else f" for {money(found['cost_usd'])}"
    whole = "" if full is None else f"; a full run would send {full['texts']:,}"
    whole += f" for {money(full['cost_usd'])}" if full is not None and full["cost_usd"] else ""
    return (
        f"{counted(found['texts_sent'], 'text')} sent in {counted(found['requests'], 'request')} "
        f"({found['tokens']:,} tokens){dollars}, {found['embeddings_reused']:,} reused{whole}"
    )


def _would_send(found: dict[str, Any]) -> str:
    dollars = "" if not found["cost_usd"] else f", {money(found['cost_usd'])}"
    return f"{counted(found['texts_sent'], 'text')} to be sent at most ({found['tokens']:,} tokens{dollars})"


def _stages(seconds: dict[str, float]) -> str:
    return ", ".join(f"{stage} {seconds[stage]:.1f}" for stage in STAGES)


def counted(number: int, noun: str) -> str:
    """`1 text`, `2 texts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def money(dollars: float | None) -> str:
    """Dollars; a dash where the price is not known."""
    if dollars is None:
        return UNKNOWN
    return f"${dollars:,.4f}" if dollars else "$0"


def touched(found: dict[str, Any], what: str, names: Sequence[str]) -> int:
    """How many documents or chunks something was done about."""
    return sum(found[what][name] for name in names)


TOUCHED_DOCUMENTS = ("new", "changed", "moved", "deleted")
TOUCHED_CHUNKS = ("new", "updated", "deleted")

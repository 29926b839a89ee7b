"""`evervec spend`: a table for people, a document or a file for programs."""

import csv
import io

from evervec.sources.telegram.demo import demo_chat_path
from tests.cli.command import Command


def test_the_ledger_is_shown_to_people_and_programs(evervec: Command) -> None:
    assert "Nothing was sent" in evervec("spend").out
    assert evervec("ingest", "telegram", demo_chat_path(), "--project", "demo", "--dataset", "chat").code == 0
    assert evervec("backfill").code == 0
    assert evervec("search", "wrong clock").code == 0

    shown = evervec("spend", "--by", "dataset", "--by", "reason").out
    assert "demo/chat" in shown and "backfill" in shown and "query" in shown

    report = evervec("spend", "--by", "reason", "--days", 1, "--json").document()
    lines = {line["reason"]: line for line in report["lines"]}
    assert lines["backfill"]["texts"] + lines["backfill"]["reused"] >= 212
    assert (lines["query"]["texts"], report["total"]["unpriced_tokens"]) == (1, 0)

    rows = list(csv.DictReader(io.StringIO(evervec("spend", "--dataset", "demo/chat", "--csv").out)))
    assert {row["dataset"] for row in rows} == {"chat"}
    assert int(rows[0]["tokens"]) > 0


def test_a_day_that_is_none_is_a_usage_error(evervec: Command) -> None:
    assert evervec("spend", "--since", "yesterday").code == 2
    assert evervec("spend", "--by", "hour").code == 2

"""`evervec ingest telegram` with files that are not what they should be: nothing lost, nothing half-written."""

from pathlib import Path
from typing import Any

import pytest

from evervec.pipeline.ingest.telegram import MESSAGES_TOGETHER
from tests.cli.command import Command
from tests.cli.exports import export, message, write

MEGABYTE = 1 << 20


def rows_of(evervec: Command) -> dict[str, Any]:
    found = evervec("status", "--json")
    assert found.code == 0, found
    document: dict[str, Any] = found.document()
    return document


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hello", "this is not JSON"),
        ("", "the file is empty"),
        ("<html></html>", "this is an HTML page"),
        ('{"a": 1', "cut off"),
        ('{"a": 1}', "no list of messages"),
        ("[1, 2]", "no list of messages"),
        (export([]), "holds no messages"),
        (export([message(1)])[:-40], "cut off"),
        ('{"id": 7, "messages": [}]', "the JSON is broken"),
        ('{"messages": [{"id": 1}]}', 'the chat has no "id"'),
        ("[" * 2_000, "cut off"),
    ],
)
def test_a_file_that_is_no_export_is_refused_and_nothing_is_made(
    evervec: Command, tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    evervec("ingest", "telegram", path).refused(str(path), words)
    found = rows_of(evervec)
    assert (found["rows"], found["datasets"]) == (0, [])


def test_a_path_that_is_no_file_is_refused(evervec: Command, tmp_path: Path) -> None:
    evervec("ingest", "telegram", tmp_path / "nowhere.json").refused("there is no such file", "nowhere.json")
    evervec("ingest", "telegram", tmp_path).refused("this is a folder")


def test_a_name_that_is_none_is_refused(evervec: Command, tmp_path: Path) -> None:
    path = write(tmp_path, [message(1)])
    for name in ("", "---", "x" * 101, "a\x00b"):
        evervec("ingest", "telegram", path, "--dataset", name).refused("is not a usable name")
    assert rows_of(evervec)["datasets"] == []


def test_a_cut_export_keeps_what_came_before_the_cut_and_goes_on_later(evervec: Command, tmp_path: Path) -> None:
    whole = export([message(number) for number in range(1, MESSAGES_TOGETHER + 301)])
    path = tmp_path / "result.json"
    path.write_text(whole[: whole.index('"id": 1251,')])
    cut = evervec("ingest", "telegram", path)
    cut.refused("cut off", "The 1,250 messages before that were read and are kept", "Stored so far: 1,250 new")
    assert rows_of(evervec)["rows"] == 1_250
    path.write_text(whole)
    again = evervec("ingest", "telegram", path, "--json")
    assert again.code == 0, again
    assert (again.document()["created"], again.document()["unchanged"]) == (50, 1_250)


def test_one_bad_message_never_stops_the_other_9_999(evervec: Command, tmp_path: Path) -> None:
    messages: list[Any] = [message(number) for number in range(1, 10_001)]
    messages[100] = message(101, id=None)
    messages[200] = message(201, date=None, date_unixtime=None)
    messages[300] = message(300)
    messages[400] = message(401, date="30000-01-01T00:00:00", date_unixtime=str(884_541_340_800))
    messages[500] = "not a message"
    messages[600] = message(601, text={"no": "text"})
    messages[700] = message(701, text="NUL \x00 and half a pair \ud800 in it")
    messages[800] = message(801, text="")
    messages[900] = message(901, text=" \n\t\u200b ")
    messages[1000] = message(1001, text="word " * (MEGABYTE // 5))
    done = evervec("ingest", "telegram", write(tmp_path, messages), "--json")
    assert done.code == 0, done
    report = done.document()
    assert (report["created"], report["rejections"], len(report["rejected"])) == (9_994, 6, 6)
    places = [rejected["place"] for rejected in report["rejected"]]
    assert [place.rpartition(" ")[2] for place in places] == ["101", "201", "300", "401", "501", "601"]
    for rejected in report["rejected"]:
        assert f"rejected {rejected['place']}: {rejected['reason']}" in done.err
    counts = rows_of(evervec)
    assert (counts["rows"], counts["pending"], counts["empty"], counts["failed"]) == (9_994, 9_992, 2, 0)


def test_the_listed_rejections_end_at_fifty_and_say_how_many_more(evervec: Command, tmp_path: Path) -> None:
    path = write(tmp_path, [message(number, date=None, date_unixtime=None) for number in range(1, 71)])
    done = evervec("ingest", "telegram", path)
    assert done.code == 0, done
    assert "70 rejected" in done.out
    assert done.err.count("rejected chat 77") == 50
    assert "… and 20 more" in done.err


def test_text_that_holds_terminal_codes_and_markup_is_shown_as_text(evervec: Command, tmp_path: Path) -> None:
    text = "\x1b[31mred\x1b[0m [bold]not bold[/bold] :warning: [/] the queue is stuck"
    assert evervec("ingest", "telegram", write(tmp_path, [message(1, text=text)])).code == 0
    assert evervec("backfill").code == 0
    found = evervec("search", "the queue is stuck")
    assert "\x1b" not in found.out
    assert "[bold]not bold[/bold] :warning:" in found.out

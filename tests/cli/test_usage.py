"""Commands used wrongly: each is told what is wrong with which word, and what to do, with exit code 2 or 1."""

from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.cli.exports import message, write


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("status --nonsense", "No such option: --nonsense"),
        ("backfill --batch-size 0", "--batch-size"),
        ("backfill --batch-size many", "--batch-size"),
        ("backfill --dataset nowhere", "There is no dataset 'nowhere'. Known datasets: none yet."),
        ("backfill --kind nonsense", "There is no kind 'nonsense'. Kinds: message, topic, atom, chunk."),
        ("batch nonsense", "No such command 'nonsense'"),
        ("batch flush", "Provider 'local' is of type local, which has no batch API."),
        ("batch flush --min-batch-size 0", "--min-batch-size"),
        ("batch flush --min-batch-size 9 --max-batch-size 5", "A job can not have 9 to 5 rows"),
        ("batch process", "has no batch API. Add one that has (type gemini or openai)"),
        ("batch sync --poll 1", "--poll goes with --wait"),
        ("batch list -k 0", "--limit"),
        ("batch show nowhere", "There is no batch job 'nowhere'. `evervec batch list` shows"),
        ("batch cancel nowhere", "There is no batch job 'nowhere'"),
        ("backfill --deferred", "Provider 'local' is of type local"),
        ("backfill --deferred --kind atom", "A batch job takes rows of every kind"),
        ("ingest files . --deferred", "Provider 'local' is of type local"),
        ("worker --tasks 0", "--tasks"),
        ("status --dataset nowhere", "There is no dataset 'nowhere'"),
        ("status --project nowhere", "There is no project 'nowhere'"),
        ("search --dataset nowhere word", "There is no dataset 'nowhere'"),
        ("search -k 0 word", "--limit"),
        ("search -k 1001 word", "--limit"),
        ("search --engine nonsense word", "There is no engine 'nonsense'. Engines: auto, mirror, pgvector, exact."),
        ("search", "Missing argument 'TEXT'"),
        ("search --min-watermark 0 word", "--min-watermark"),
        ("search --min-watermark 999999999 word", "this database has only begun"),
        ("search --rows 1 word", "Row ids are ids of one kind: say which, one of message, topic, atom, chunk."),
        ("search --rows 1,x --kind message word", "--rows: 'x' is not a row id."),
        ("search --rows 1,-2 --kind message word", "--rows: '-2' is not a row id."),
        ("search --rows 99999999999999999999 --kind message word", "'99999999999999999999' is not a row id."),
        ("similar message 1 --engine nonsense", "There is no engine 'nonsense'."),
        ("mirror nonsense", "No such command 'nonsense'"),
        ("mirror check --dataset nowhere", "There is no dataset 'nowhere'. Known datasets: none yet."),
        ("mirror rebuild --dataset nowhere", "There is no dataset 'nowhere'"),
        ("mirror compact --project nowhere", "There is no project 'nowhere'"),
        ("mirror status --dataset nowhere", "There is no dataset 'nowhere'"),
        ("similar message 999999", "There is no message 999999. `evervec search` prints the ids"),
        ("similar nonsense 1", "There is no kind 'nonsense'"),
        ("similar message 0", "ID"),
        ("similar message 99999999999999999999", "ID"),
        ("duplicates --threshold 2", "--threshold is 2.0"),
        ("duplicates --threshold nan", "--threshold is nan"),
        ("failed retry nonsense", "'nonsense' does not name a failure. Give KIND:ID"),
        ("failed retry message:", "does not name a failure"),
        ("failed retry message:²", "does not name a failure"),
        ("failed retry message:99999999999999999999", "does not name a failure"),
        ("failed discard extraction:1", "not tried again until it is edited"),
        ("failed list --dataset nowhere", "There is no dataset 'nowhere'"),
        ("providers test nowhere", "There is no provider 'nowhere'. Known providers: local."),
        ("providers remove nowhere", "There is no provider 'nowhere'"),
        ("providers use nowhere", "There is no provider 'nowhere'"),
        (
            "providers add new --type nonsense",
            "There is no provider type 'nonsense'. Types: local, onnx, fastembed, sentence-transformers, ollama, gemini, openai.",
        ),
        ("providers add !!! --type local", "is not a usable name"),
    ],
)
def test_wrong_usage_is_told(evervec: Command, line: str, words: str) -> None:
    evervec(*line.split()).refused(words)


def test_a_blank_question_is_refused(evervec: Command) -> None:
    for text in ("", "   ", "\u200b"):
        evervec("search", text).refused("The search text is blank", 'evervec search "slow query"')


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9"),
        ("nonsense", "'nonsense' is not an address like http://127.0.0.1:11434"),
        ("http://user:secret@127.0.0.1:9", "is not an address like"),
    ],
)
def test_a_provider_that_can_not_be_reached_is_not_kept(evervec: Command, url: str, words: str) -> None:
    done = evervec("providers", "add", "new", "--base-url", url, "--model", "embedder")
    done.refused(words, code=1)
    names = [provider["name"] for provider in evervec("providers", "list", "--json").document()["providers"]]
    assert names == ["local"]


def test_the_only_provider_is_not_removed_while_there_is_text(evervec: Command, tmp_path: Path) -> None:
    assert evervec("ingest", "telegram", write(tmp_path, [message(1)])).code == 0
    evervec("providers", "remove", "local").refused("'local' is the only provider", "Add another one first")


def test_an_api_key_without_a_secret_key_is_not_kept(evervec: Command) -> None:
    evervec("providers", "add", "new", "--type", "local", "--api-key", "abc").refused("EVERVEC_SECRET_KEY is not set")
    evervec("providers", "add", "new", "--type", "local", "--api-key", "abc", EVERVEC_SECRET_KEY="short").refused(
        "EVERVEC_SECRET_KEY must be 32 bytes"
    )


def test_every_command_explains_itself(evervec: Command) -> None:
    overview = evervec("--help")
    assert overview.code == 0
    for group in ("Start", "Text in, answers out", "Operate it", "Run it on servers"):
        assert f"─ {group} ─" in overview.out
    for line in ("search", "ingest telegram", "failed retry", "mirror check", "providers add", "backfill", "up"):
        done = evervec(*line.split(), "--help")
        assert (done.code, "Usage: evervec" in done.out) == (0, True), done


def test_the_version_is_told(evervec: Command) -> None:
    assert evervec("--version").out == evervec("version").out == "evervec 0.1.0\n"
    assert evervec("version", "--json").document() == {"version": "0.1.0"}

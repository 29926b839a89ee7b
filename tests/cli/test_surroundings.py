"""What the command line says when the folder, the port, the servers or the provider are not as they should be."""

import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.command import Command
from tests.cli.exports import message, write
from tests.fakes.faults import Fault
from tests.fakes.thread import FakeProviderThread

NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("EVERVEC_NATS_PORT", "nonsense", "valid integer"),
        ("EVERVEC_NATS_PORT", "70000", "less than or equal to 65535"),
        ("EVERVEC_POOL_SIZE", "1", "greater than or equal to 2"),
        ("EVERVEC_LOG_LEVEL", "LOUD", "'DEBUG'"),
        ("EVERVEC_STREAM", "with blanks", "match pattern"),
        ("EVERVEC_LEASE_SECONDS", "0", "greater than 0"),
        ("EVERVEC_LOG_JSON", "perhaps", "valid boolean"),
    ],
)
def test_a_wrong_setting_is_named(evervec: Command, variable: str, value: str, words: str) -> None:
    done = evervec("status", **{variable: value})
    done.refused(f"{variable}={value}: ", words, "Set it right, or unset it.")


def test_an_empty_setting_counts_as_unset_and_a_level_may_be_small(evervec: Command) -> None:
    assert evervec("status", EVERVEC_NATS_PORT="", EVERVEC_LOG_LEVEL="error").code == 0


def test_a_home_that_can_not_be_written_is_named(evervec: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = evervec("status", EVERVEC_HOME=tmp_path / "file" / "home", EVERVEC_DATABASE_URL=None)
    done.refused(
        f"EVERVEC_HOME={tmp_path}/file/home can not be written (Not a directory)", "Point EVERVEC_HOME", code=1
    )


def test_a_taken_port_is_named_and_nothing_stays_behind(evervec: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = evervec("status", EVERVEC_QUEUE="nats", EVERVEC_NATS_URL=None, EVERVEC_NATS_PORT=port)
    done.refused(f"Port {port} is taken, so NATS can not listen there", "EVERVEC_NATS_PORT", code=1)
    assert not list((tmp_path / "home").rglob("*.pid"))


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        (f"postgresql://ada:tops3cret@{NOWHERE}/x", 1, f"PostgreSQL at postgresql://{NOWHERE}/x does not answer"),
        ("mysql://ada:tops3cret@host/x", 2, "EVERVEC_DATABASE_URL can not be used"),
        ("tops3cret", 2, "EVERVEC_DATABASE_URL can not be used"),
        ("postgresql://ada:tops3cret/more@host/x", 2, "EVERVEC_DATABASE_URL can not be used"),
    ],
)
def test_a_database_that_is_not_there_is_named_without_its_password(
    evervec: Command, url: str, code: int, words: str
) -> None:
    done = evervec("status", EVERVEC_DATABASE_URL=url)
    done.refused(words, "EVERVEC_DATABASE_URL", code=code)
    assert "tops3cret" not in done.err


def test_a_missing_role_or_database_is_no_server_that_is_down(evervec: Command) -> None:
    url = evervec.environment["EVERVEC_DATABASE_URL"]
    parts = urlsplit(url)
    elsewhere = parts._replace(path="/nowhere").geturl()
    evervec("status", EVERVEC_DATABASE_URL=elsewhere).refused('database "nowhere" does not exist', "createdb", code=1)
    nobody = url.replace("postgresql://evervec@", "postgresql://nobody@")
    evervec("status", EVERVEC_DATABASE_URL=nobody).refused('role "nobody" does not exist', "Check the user", code=1)


def test_a_database_without_our_schema_says_how_to_get_it(evervec: Command) -> None:
    url = urlsplit(evervec.environment["EVERVEC_DATABASE_URL"])._replace(path="/postgres").geturl()
    evervec("status", EVERVEC_DATABASE_URL=url).refused("Run `evervec migrate`", code=1)


def test_without_nats_an_import_works_and_says_so(evervec: Command, tmp_path: Path) -> None:
    path = write(tmp_path, [message(number) for number in range(1, 301)])
    started = time.monotonic()
    done = evervec("ingest", "telegram", path, EVERVEC_NATS_URL=f"nats://ada:tops3cret@{NOWHERE}")
    assert done.code == 0, done
    done.tidy()
    assert time.monotonic() - started < 60
    assert "300 new" in done.out
    assert f"NATS at nats://{NOWHERE} does not answer" in done.err
    assert "300 rows wait to be embedded" in done.err
    assert "tops3cret" not in done.err
    status = evervec("status", EVERVEC_NATS_URL=f"nats://{NOWHERE}")
    assert (status.code, "No doorbell" in status.out) == (0, True)
    filled = evervec("backfill", "--json", EVERVEC_NATS_URL=f"nats://{NOWHERE}")
    assert (filled.code, filled.document()["embedded"]) == (0, 300)


@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_without_nats_nobody_works(evervec: Command, command: str) -> None:
    done = evervec(command, EVERVEC_NATS_URL=f"nats://{NOWHERE}", EVERVEC_CONNECT_SECONDS=1)
    assert done.code == 1
    assert f"error: NATS at nats://{NOWHERE} does not answer" in done.err
    done.tidy()


def test_a_provider_whose_vectors_change_their_width_stops_with_its_reason(evervec: Command, tmp_path: Path) -> None:
    with FakeProviderThread(dims=32) as fake:
        added = evervec("providers", "add", "fake", "--base-url", fake.url, "--model", "embedder", "--json")
        assert (added.code, added.document()["dimensions"], added.document()["active"]) == (0, 32, True)
        assert evervec("ingest", "telegram", write(tmp_path, [message(n) for n in range(1, 9)])).code == 0
        fake.dims = 16
        filled = evervec("backfill")
        assert filled.code == 1
        assert "8 rows still wait: fake is configured wrongly: its vectors have 16 dimensions" in filled.err
        evervec("search", "queue").refused("its vectors have 16 dimensions, the space has 32", "--reembed", code=1)
        evervec("providers", "test", "fake").refused("its vectors have 16 dimensions, the space has 32", code=1)
        listed = evervec("providers", "list")
        assert "its vectors have 16 dimensions" in listed.out
        fake.dims = 32
        assert evervec("providers", "test", "fake").code == 0
        again = evervec("backfill", "--json")
        assert (again.code, again.document()["embedded"]) == (0, 8)


def test_a_row_that_the_provider_refuses_is_listed_with_its_reason(evervec: Command, tmp_path: Path) -> None:
    with FakeProviderThread(dims=32) as fake:
        evervec("providers", "add", "fake", "--base-url", fake.url, "--model", "embedder")
        evervec("ingest", "telegram", write(tmp_path, [message(1), message(2, text="[cursed] text")]))
        fake.always(lambda text: "cursed" in text, Fault.BAD_REQUEST_400)
        filled = evervec("backfill", "--json")
        assert (filled.code, filled.document()["failed"]) == (1, 1)
        listed = evervec("failed", "list")
        assert (listed.code, "bad_input" in listed.out, "“[cursed] text”" in listed.out) == (0, True, True)
        (failure,) = evervec("failed", "list", "--json").document()["failed"]
        assert (failure["kind"], failure["code"], failure["text"]) == ("message", "bad_input", "[cursed] text")
        assert "1 reopened" in evervec("failed", "retry", f"message:{failure['id']}").out
        fake.heal()
        assert evervec("backfill", "--json").document()["embedded"] == 1

"""`evervec mirror`: what differs is counted and named, put right, and told by exit code; also by a process that holds it."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.command import Command
from tests.cli.exports import message, write

PATIENCE = 60.0
# the other way round: no vector is further from what it was
FIRST_TEN_TURNED = """
UPDATE embeddings SET embedding = embedding - embedding - embedding
WHERE vector_id IN (SELECT vector_id FROM embeddings WHERE embedding IS NOT NULL ORDER BY vector_id LIMIT 10)
"""
BEHIND_THE_FEED = (
    "ALTER TABLE embeddings DISABLE TRIGGER evervec_vector_changed; "
    f"{FIRST_TEN_TURNED}; ALTER TABLE embeddings ENABLE ALWAYS TRIGGER evervec_vector_changed"
)


def sql(evervec: Command, *statements: str) -> None:
    """Behind everybody's back."""

    async def run() -> None:
        connection = await asyncpg.connect(evervec.environment["EVERVEC_DATABASE_URL"])
        try:
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def fill(evervec: Command, folder: Path, count: int) -> None:
    """As many messages, embedded."""
    path = write(folder, [message(number) for number in range(1, count + 1)])
    assert evervec("ingest", "telegram", path, "--project", "river", "--dataset", "log").code == 0
    assert evervec("backfill").code == 0


def checked(evervec: Command, *arguments: str, code: int) -> dict[str, Any]:
    """`mirror check` with the exit code it must have; what it says of the only dataset."""
    done = evervec("mirror", "check", *arguments, "--json")
    assert done.code == code, done
    document = done.document()
    assert document.keys() == {"in_sync", "datasets", "problems"}
    assert document["in_sync"] == (code == 0)
    (one,) = document["datasets"]
    assert isinstance(one, dict)
    return one


def counts(one: dict[str, Any]) -> tuple[int, int, int]:
    return one["missing"], one["extra"], one["stale"]


def mirror_of(evervec: Command) -> dict[str, Any]:
    (dataset,) = evervec("status", "--json").document()["datasets"]
    mirror: dict[str, Any] = dataset["mirror"]
    return mirror


def wait_for(evervec: Command, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the mirror in `evervec status`, once a condition holds of it."""
    ends = time.monotonic() + PATIENCE
    while not holds(found := mirror_of(evervec)):
        assert time.monotonic() < ends, found
    return found


@pytest.fixture
def up(evervec: Command) -> Iterator[Callable[[], int]]:
    """Start `evervec up` beside the test and give its process id; stop it at the end."""
    started = []

    def start() -> int:
        process = evervec.start("up", EVERVEC_API_PORT=0)
        started.append(process)
        return process.pid

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert "Traceback" not in err


def test_168_in_the_database_and_155_in_the_index(evervec: Command, tmp_path: Path) -> None:
    fill(evervec, tmp_path, 155)
    built = evervec("mirror", "rebuild", "--dataset", "log", "--json").document()
    assert built["holds"] and built["datasets"][0]["vectors"] == 155
    fill(evervec, tmp_path, 168)
    found = checked(evervec, code=1)
    assert (counts(found), found["vectors"], found["repaired"]) == ((13, 0, 0), 168, "repair")
    assert len(set(found["examples"]["missing"])) == 13
    again = checked(evervec, code=0)
    assert (counts(again), again["vectors"], again["repaired"]) == ((0, 0, 0), 168, "")


def test_ten_vectors_changed_by_sql_while_nobody_follows(evervec: Command, tmp_path: Path) -> None:
    fill(evervec, tmp_path, 60)
    nothing_yet = checked(evervec, "--quick", code=1)
    assert (nothing_yet["state"], counts(nothing_yet), nothing_yet["repaired"]) == ("absent", (60, 0, 0), "rebuild")
    assert checked(evervec, "--quick", code=0)["state"] == "at rest"
    sql(evervec, FIRST_TEN_TURNED)
    for _ in range(2):  # looking alone repairs nothing
        looked = checked(evervec, "--dry-run", code=1)
        assert (counts(looked), looked["repaired"], looked["held_by"]) == ((0, 0, 10), "", None)
    repaired = checked(evervec, code=1)
    assert (counts(repaired), repaired["repaired"]) == ((0, 0, 10), "repair")
    assert counts(checked(evervec, code=0)) == (0, 0, 0)


@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_a_change_that_went_round_the_feed_is_found_in_a_file(
    evervec: Command, tmp_path: Path, options: list[str]
) -> None:
    fill(evervec, tmp_path, 60)
    assert evervec("mirror", "rebuild").code == 0
    sql(evervec, BEHIND_THE_FEED)
    checked(evervec, "--quick", code=0)  # versions alone can not tell
    assert counts(checked(evervec, *options, code=1)) == (0, 0, 10)
    checked(evervec, *options, code=1 if options else 0)


def test_a_live_process_is_asked_and_repairs_what_went_round_the_feed(
    evervec: Command, tmp_path: Path, up: Callable[[], int]
) -> None:
    fill(evervec, tmp_path, 60)
    pid = up()
    wait_for(evervec, lambda mirror: mirror["state"] == "ready" and mirror["in_sync"])
    sql(evervec, BEHIND_THE_FEED)
    found = checked(evervec, code=1)
    assert (counts(found), found["held_by"], found["repaired"]) == ((0, 0, 10), pid, "repair")
    assert mirror_of(evervec)["in_sync"] is False
    assert checked(evervec, code=0)["held_by"] == pid
    checked(evervec, "--dry-run", code=0)  # the file it keeps is true again, too
    status = evervec("mirror", "status", "--json").document()["datasets"][0]
    assert (status["state"], status["in_sync"], [held["pid"] for held in status["holders"]]) == ("ready", True, [pid])
    rebuilt = evervec("mirror", "rebuild", "--json").document()["datasets"][0]
    assert (rebuilt["held_by"], rebuilt["state"], rebuilt["built"]) == (pid, "ready", True)


def test_what_people_read(evervec: Command, tmp_path: Path) -> None:
    fill(evervec, tmp_path, 40)
    assert "river/log: mirror absent" in evervec("status").out
    done = evervec("mirror", "check")
    assert done.code == 1
    assert "river/log" in done.out and "1 mirror was not in sync, and repaired." in done.out
    assert "river/log: missing vectors 1, 2, 3" in done.out and "and 20 more" in done.out
    assert "In sync: every mirror is what the database says." in evervec("mirror", "check").out
    assert "nothing to do" in evervec("mirror", "compact").out
    said = evervec("mirror", "status").out
    for words in ("at rest", "40, 0.0 MB in memory", "target 0.98, mirror not measured yet", "no live process", ".bin"):
        assert words in said, said
    assert "river/log: mirror at rest (40)" in evervec("status").out
    assert "from mirror at watermark " in evervec("search", "deploy lock", "--engine", "mirror").err


def test_a_folder_that_can_not_be_written_is_told(evervec: Command, tmp_path: Path) -> None:
    fill(evervec, tmp_path, 3)
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "faiss")
    done = evervec("mirror", "rebuild", EVERVEC_FAISS_DIR=folder)
    assert done.code == 1
    assert "river/log: in memory only" in done.err and "EVERVEC_FAISS_DIR" in done.err
    done.tidy()
    check = evervec("mirror", "check", "--json", EVERVEC_FAISS_DIR=folder)
    assert (check.code, check.document()["datasets"][0]["repaired"]) == (1, "")
    assert "in memory only" in check.document()["datasets"][0]["reason"]
    assert evervec("status", EVERVEC_FAISS_DIR=folder).code == 0
    assert evervec("search", "deploy", EVERVEC_FAISS_DIR=folder).code == 0


def test_a_search_can_be_kept_to_rows_and_to_an_engine(evervec: Command, tmp_path: Path) -> None:
    fill(evervec, tmp_path, 40)
    assert evervec("mirror", "rebuild").code == 0
    ids = [hit["id"] for hit in evervec("search", "deploy", "-k", 40, "--json").document()["hits"]][-3:]
    given = ["search", "deploy", "--kind", "message", "--json"]
    for engine in ("auto", "mirror", "pgvector", "exact"):
        found = evervec(*given, "--rows", ",".join(map(str, ids)), "--engine", engine).document()
        assert [hit["id"] for hit in found["hits"]] == ids, engine
    process = evervec.start(*given, "--rows", "-")
    out, _ = process.communicate("\n".join(map(str, ids)), timeout=PATIENCE)
    assert process.returncode == 0 and all(f'"id": {row_id}' in out for row_id in ids)
    assert evervec("similar", "message", ids[0], "--engine", "mirror", "--json").document()["engine"] == "mirror"

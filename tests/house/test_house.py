"""The house linters can fail: each law is broken once, and the break is found where it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.linters import house

OPENING = '"""What lives here."""\n'
PLANTED = {
    "commit": (
        "pipeline/ingest/telegram.py",
        "async def f(tx):\n    await tx.commit()\n",
        "transactions are opened by",
    ),
    "rollback": (
        "cli/terminal/run.py",
        "async def f(connection):\n    await connection.rollback()\n",
        "transactions are opened by",
    ),
    "transaction": (
        "store/embeddings/rows.py",
        "async def f(tx):\n    async with tx.transaction():\n        ...\n",
        "transactions",
    ),
    "a connection of its own": (
        "store/monitor.py",
        "import asyncpg\nasync def f(url):\n    return await asyncpg.connect(url)\n",
        "store/address/connecting.py",
    ),
    "unnamed task": ("worker/tasks.py", "@broker.task\nasync def t():\n    ...\n", "no task_name"),
    "task named by hand": ("worker/tasks.py", "@broker.task(task_name='t')\nasync def t():\n    ...\n", "no task_name"),
    "wall clock": ("pipeline/upkeep/sweep.py", "import time\nx = time.time()\n", "PostgreSQL's now()"),
    "utcnow": (
        "store/embeddings/rows.py",
        "from datetime import datetime\nx = datetime.utcnow()\n",
        "PostgreSQL's now()",
    ),
    "today": ("cli/commands/search.py", "from datetime import date\nx = date.today()\n", "PostgreSQL's now()"),
    "now": ("worker/main.py", "from datetime import UTC, datetime\nx = datetime.now(UTC)\n", "PostgreSQL's now()"),
    "a query": ("web/app.py", "async def f(tx):\n    await tx.fetch('SELECT 1')\n", "SQL belongs into"),
    "a statement": (
        "pipeline/upkeep/janitor.py",
        'def f(table):\n    return f"""\n        DELETE FROM {table}\n    """\n',
        "SQL belongs into",
    ),
    "a filter after the limit of a search": (
        "store/embeddings/rows.py",
        'def f(half):\n    return f"""SELECT n.row_id FROM embeddings e CROSS JOIN LATERAL (\n'
        "        SELECT row_id, dataset_id, {half} <=> e.{half} AS distance FROM embeddings WHERE kind = {1:d}\n"
        "        ORDER BY {half} <=> e.{half} LIMIT 10) n\n"
        '    WHERE e.kind = 1 AND n.dataset_id = ANY($1) AND n.distance <= 1"""\n',
        "n.dataset_id is filtered after the LIMIT",
    ),
    "a filter without the name of the search": (
        "store/embeddings/rows.py",
        "x = 'SELECT row_id FROM (SELECT row_id, kind FROM e ORDER BY v <=> $1 LIMIT 10) n WHERE kind = 1'\n",
        "n.kind is filtered after the LIMIT",
    ),
    "a filter of a named search": (
        "store/embeddings/rows.py",
        "x = 'WITH n AS MATERIALIZED (SELECT row_id, kind FROM e ORDER BY v <=> $1 LIMIT 10) SELECT * FROM n WHERE n.kind = 1'\n",
        "n.kind is filtered after the LIMIT",
    ),
    "a join after the limit of a search": (
        "store/embeddings/rows.py",
        "def f(e):\n    return f'SELECT r.id FROM ({_nearest(e, exact=True)}) n JOIN {e.table} r ON r.id = n.row_id'\n",
        "n.row_id is filtered after the LIMIT",
    ),
    "a session lock": (
        "pipeline/upkeep/janitor.py",
        "async def f(database):\n    async with database.advisory_lock('tidy'):\n        ...\n",
        "a session lock",
    ),
    "a session lock in SQL": ("store/runs.py", "x = 'SELECT pg_try_advisory_lock(1)'\n", "a session lock"),
    "import pickle": ("queue/broker.py", "import pickle\n", "pickle is not imported"),
    "from pickle": ("queue/broker.py", "from pickle import loads\n", "pickle is not imported"),
    "silent except": (
        "queue/jetstream/pull.py",
        "try:\n    x = 1\nexcept ValueError:\n    pass\n",
        "an except that only passes",
    ),
    "text of a node": (
        "sources/structure/definition_names.py",
        "from tree_sitter import Node\nx = node.text\n",
        "parsed bytes",
    ),
    "long file": ("store/embeddings/rows.py", "x = 1\n" * house.MOST_LINES, "at most"),
    "private word": ("pipeline/chunking.py", "class Kitchen:\n    ...\n", "private word"),
    "module named utils": ("store/utils.py", "x = 1\n", "says nothing"),
}
ALLOWED = {
    "the only commit": ("store/database/session.py", "async def f(tx):\n    await tx.commit()\n"),
    "a transaction of the database": ("pipeline/ingest/telegram.py", "async def f(r):\n    async with r.database.transaction():\n        ...\n"),
    "a task with its name": ("worker/tasks.py", "@broker.task(task_name=names.EMBED)\nasync def t():\n    ...\n"),
    "a clock that only measures": ("pipeline/upkeep/sweep.py", "from time import monotonic\nx = monotonic()\n"),
    "the date in a header of HTTP": ("vendors/http.py", "from datetime import UTC, datetime\nx = datetime.now(UTC)\n"),
    "SQL in the store": ("store/foreign/reader.py", "x = 'SELECT 1'\n"),
    "a distance after the limit of a search": (
        "store/embeddings/rows.py",
        "x = 'SELECT n.id FROM e CROSS JOIN LATERAL (SELECT id, v <=> e.v AS distance FROM o WHERE kind = 1 "
        "ORDER BY v <=> e.v LIMIT 10) n LEFT JOIN r ON r.id = n.id WHERE e.kind = 1 AND n.distance < 1'\n",
    ),
    "a session lock around a migration": (
        "store/schema/migrations.py",
        "async def f(database):\n    async with database.advisory_lock('migrate'):\n        ...\n",
    ),
    "a lock that ends with its transaction": ("store/knowledge.py", "x = 'SELECT pg_advisory_xact_lock(1)'\n"),
    "SQL that makes the embedded database": ("stack/postgres/cluster.py", "x = f'CREATE DATABASE {NAME}'\n"),
    "a docstring about SQL": ("pipeline/resources.py", "def f():\n    \"\"\"SELECT rows, as the store does.\"\"\"\n"),
    "words in capitals": ("cli/terminal/output.py", "x = 'SET'\ny = 'DELETE, or not'\nz = 'SELECTED rows'\n"),
    "an except that answers": ("queue/jetstream/pull.py", "try:\n    x = 1\nexcept ValueError:\n    x = 2\n"),
}  # fmt: skip


PLANTED_IN_PACKAGE = {
    "one class twice": (
        house.class_names,
        {"store/embeddings/rows.py": "class Row:\n    ...\n", "mirror/index.py": "class Row:\n    ...\n"},
        "store/embeddings/rows.py:2: class Row is also in mirror/index.py",
    ),
    "one constant with two values": (
        house.constants,
        {"pipeline/a.py": "BATCH: int = 16\n", "pipeline/b.py": "BATCH = 100\n"},
        "pipeline/b.py:2: BATCH has another value in pipeline/a.py",
    ),
    "a plural": (
        house.siblings,
        {"status/run.py": "", "status/runs.py": ""},
        "status/runs.py:1: runs and run beside each other",
    ),
    "a gerund": (
        house.siblings,
        {"pipeline/index.py": "", "pipeline/indexing/__init__.py": ""},
        "pipeline/indexing/__init__.py:1: indexing and index beside each other",
    ),
    "an agent": (
        house.siblings,
        {"mirror/publish.py": "", "mirror/publisher.py": ""},
        "mirror/publisher.py:1: publisher and publish beside each other",
    ),
}
ALLOWED_IN_PACKAGE = {
    "private names": (
        house.class_names,
        {"store/embeddings/rows.py": "class _Row:\n    ...\n", "mirror/index.py": "class _Row:\n    ...\n"},
    ),
    "a class inside another": (
        house.class_names,
        {
            "store/embeddings/rows.py": "class Row:\n    ...\n",
            "mirror/index.py": "class Index:\n    class Row:\n        ...\n",
        },
    ),
    "private constants": (house.constants, {"pipeline/a.py": "_BATCH = 16\n", "pipeline/b.py": "_BATCH = 100\n"}),
    "one value twice": (house.constants, {"pipeline/a.py": "BATCH = 16\n", "pipeline/b.py": "BATCH = 16\n"}),
    "a constant of another module": (
        house.constants,
        {"pipeline/a.py": "BATCH = 16\n", "pipeline/b.py": "from evervec.pipeline import a\nBATCH = a.BATCH\n"},
    ),
    "names in two folders": (house.siblings, {"status/runs.py": "", "indexing/run.py": ""}),
    "a name of two words": (house.siblings, {"store/batch.py": "", "store/batch_jobs.py": ""}),
    "a long ending": (house.siblings, {"store/text.py": "", "store/textprocessing.py": ""}),
}


def planted_modules(sources: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch) -> list[house.Module]:
    monkeypatch.setattr(house, "PACKAGE", root)
    return [house.Module(root / name, OPENING + source) for name, source in sorted(sources.items())]


def findings(path: Path, source: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(house, "PACKAGE", root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return [f"{found.name}:{line}: {text}" for found, line, text in house.findings([path])]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_break_is_found_and_nothing_else(
    planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, source, said = PLANTED[planted]
    found = findings(tmp_path / name, OPENING + source, tmp_path, monkeypatch)
    assert len(found) == 1 and said in found[0], found


@pytest.mark.parametrize("allowed", ALLOWED)
def test_what_the_laws_allow_is_left_alone(allowed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, source = ALLOWED[allowed]
    assert findings(tmp_path / name, OPENING + source, tmp_path, monkeypatch) == []


def test_a_module_without_an_opening_sentence_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = findings(tmp_path / "store" / "rows.py", "x = 1\n", tmp_path, monkeypatch)
    assert "no docstring" in found


@pytest.mark.parametrize("planted", PLANTED_IN_PACKAGE)
def test_a_planted_break_between_files_is_found(planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, sources, said = PLANTED_IN_PACKAGE[planted]
    ((path, line, text),) = rule(planted_modules(sources, tmp_path, monkeypatch))
    assert f"{path.relative_to(tmp_path)}:{line}: {text}".startswith(said)


@pytest.mark.parametrize("allowed", ALLOWED_IN_PACKAGE)
def test_what_is_allowed_between_files_is_left_alone(
    allowed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, sources = ALLOWED_IN_PACKAGE[allowed]
    assert list(rule(planted_modules(sources, tmp_path, monkeypatch))) == []


@pytest.mark.parametrize("word", ["Kitchen", "_canary_sings", "in_company", "wishes", "left without a word"])
def test_a_private_word_is_found(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (module,) = planted_modules({"store/embeddings/rows.py": f"# {word}\n"}, tmp_path, monkeypatch)
    ((_, line, text),) = house.private_words(module)
    assert (line, "private word" in text) == (2, True)


def test_every_rule_is_planted() -> None:
    assert set(house.PACKAGE_RULES) <= {rule for rule, _, _ in PLANTED_IN_PACKAGE.values()}
    caught: set[str] = set()
    for name, source, _ in PLANTED.values():
        module = house.Module(house.PACKAGE / name, OPENING + source)
        caught |= {rule.__name__ for rule in house.RULES if rule is not house.openings and list(rule(module))}
    assert caught == {rule.__name__ for rule in house.RULES} - {"openings"}


def test_the_house_keeps_its_own_laws() -> None:
    run = subprocess.run(
        [sys.executable, "scripts/linters/house.py"], cwd=house.ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize(
    "source",
    ["asyncio.timeout(5)\n", "asyncio.wait_for(answer(), 2.5)\n", "eventually('it is there', there, seconds=30)\n"],
)
def test_a_test_that_does_not_wait_long_is_found(source: str, tmp_path: Path) -> None:
    path = tmp_path / "test_hurried.py"
    path.write_text("asyncio.timeout(60)\n" + source)
    ((found, line, said),) = house.findings_in_tests([path])
    assert (found, line) == (path, 2) and "give it 60 s" in said


@pytest.mark.parametrize("source", ["from time import thread_time\n", "import time\nx = time.process_time()\n"])
def test_a_test_that_measures_processor_time_is_found(source: str, tmp_path: Path) -> None:
    path = tmp_path / "test_fast.py"
    path.write_text(source)
    ((found, _, said),) = house.findings_in_tests([path])
    assert found == path and "pytest.mark.timeout" in said

"""`evervec demo`, the first thing a reader sees: it proves what it claims, fits the screen, and leaves nothing."""

import re
from pathlib import Path

import psutil

from tests.cli.command import Command
from tests.cli.conftest import bare_environment


def processes_of(folder: Path) -> list[list[str]]:
    every = [process.info for process in psutil.process_iter(["cmdline", "cwd"])]
    return [one["cmdline"] for one in every if str(folder) in " ".join([*(one["cmdline"] or []), one["cwd"] or ""])]


def test_the_demo_proves_its_claims_and_leaves_nothing(tmp_path: Path) -> None:
    evervec = Command(bare_environment(TMPDIR=str(tmp_path), COLUMNS="80", EVERVEC_LOCAL_MODEL="auto"))
    done = evervec.process("demo")
    assert (done.code, done.err) == (0, ""), done
    assert "holds  the HNSW index answers a search for messages\n         Index Scan using embeddings_hnsw_" in done.out
    assert "holds  nothing is NULL\n         0 of " in done.out
    assert "FAILS" not in done.out
    assert "holds  the mirror is what the database says\n         0 missing, 0 extra, 0 stale of " in done.out
    for heading in (
        "What was extracted",
        "Coverage",
        "Its mirror in FAISS is built",
        "Proof",
        "The model changes to minilm while everything can be searched",
        "its servers and its data are removed",
    ):
        assert heading in done.out
    before, after = re.findall(r"^  (?:before|after)  +(.+)$", done.out, re.MULTILINE)
    assert after.startswith("Action: max_slot_wal_keep_size = 50GB, so that") and before != after
    both = re.findall(r"^ {8}mirror [0-9.]+ ms, pgvector [0-9.]+ ms: the same hits$", done.out, re.MULTILINE)
    assert len(both) == 3
    assert max(map(len, done.out.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []

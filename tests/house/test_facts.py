"""A fact about a vendor, a kind of row or a source type stands once: every list of them is equal to that declaration."""

import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from evervec.cli.app import app
from evervec.domain import vendors
from evervec.domain.sources import SourceType
from evervec.embedders.catalog import open_batch_client, open_embedder
from evervec.errors import ConfigError, NoBatchError
from evervec.extractors.catalog import open_extractor
from evervec.pipeline.upkeep import sweep
from evervec.queue import names
from evervec.store.conditions.fields import SEARCH_FIELDS
from evervec.store.schema.embeddables import BY_KIND, BY_NAME, EMBEDDABLES, PURGED_TABLES

ROOT = Path(__file__).parents[2]
OWNED_BY_A_DATASET = """
SELECT conrelid::regclass::text AS table_name FROM pg_constraint
WHERE contype = 'f' AND confrelid = 'datasets'::regclass AND conrelid::regclass::text <> ALL($1)
"""
INSTALLED = [
    vendor
    for vendor in vendors.VENDORS
    if vendor != vendors.SENTENCE_TRANSFORMERS or find_spec("sentence_transformers") is not None
]
"""All but what is too large for a checkout."""

NOT_PURGED_BY_THE_PIECE = ("budgets", "dataset_spaces", "index_runs", "media", "mirrors", "recall_checks")
"""Tables whose rows go with the row of their document or dataset, or in one statement before."""


async def allowed(psql: Any, table: str, constraint: str) -> set[str]:
    """Return the words that a CHECK constraint of the migrated database allows."""
    definition = await psql.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::text::regclass AND conname = $2",
        table,
        f"{table}_{constraint}",
    )
    return set(re.findall(r"'([\w-]+)'", definition))


def option(path: str, name: str) -> typer.core.TyperOption:
    """Return an option of a command."""
    command: Any = get_command(app)
    for word in path.split():
        command = command.commands[word]
    return next(found for found in command.params if name in (*found.opts, found.name))


def refused(type_: str, **given: Any) -> str | None:
    """Why a record of this type can not be opened, or None."""
    try:
        open_embedder(type_, name="mine", **given)
    except ConfigError as error:
        return error.detail
    return None


async def test_the_database_takes_exactly_the_types_that_are_declared(psql: Any) -> None:
    assert await allowed(psql, "llm_providers", "type_known") == set(vendors.TYPES)
    assert await allowed(psql, "sources", "type_known") == set(SourceType)


async def test_what_is_purged_with_a_dataset_is_every_table_of_rows(psql: Any) -> None:
    owned = {row["table_name"] for row in await psql.fetch(OWNED_BY_A_DATASET, list(NOT_PURGED_BY_THE_PIECE))}
    assert set(PURGED_TABLES) == owned
    assert {one.table for one in EMBEDDABLES} < owned


def test_every_vendor_has_an_embedder_and_no_other_type_has() -> None:
    for vendor in INSTALLED:
        assert refused(vendor.type, model=vendor.model, api_key="key") is None
        assert ("API key" in (refused(vendor.type, model=vendor.model) or "")) is vendor.needs_key
        assert (refused(vendor.type, model=vendor.model, api_key="key", dimensions=8) is None) is vendor.several_widths
    assert "Known types: " + ", ".join(vendors.TYPES) in (refused("nonsense", model="m") or "")


def test_every_vendor_with_a_batch_api_has_its_client_and_no_other_has() -> None:
    for vendor in vendors.VENDORS:
        if vendor.batch:
            assert open_batch_client(vendor.type, model=vendor.model, api_key="key", name="mine").limits.rows
        else:
            with pytest.raises(NoBatchError, match=re.escape(f"(type {' or '.join(vendors.BATCH_TYPES)})")):
                open_batch_client(vendor.type, model=vendor.model, api_key="key", name="mine")
    assert set(vendors.MEDIA_TYPES) <= set(vendors.BATCH_TYPES), "media are described in batch jobs"


def test_every_vendor_that_extracts_has_an_extractor_and_no_other_has() -> None:
    reader = open_embedder(vendors.LOCAL.type, name="reader")
    for vendor in vendors.VENDORS:
        if vendor.extracts:
            assert open_extractor(vendor.type, model="chat", api_key="key", name="mine", embedder=reader)
        else:
            with pytest.raises(ConfigError, match=f"Known types: {', '.join(vendors.EXTRACTOR_TYPES)}"):
                open_extractor(vendor.type, model="chat", name="mine", embedder=reader)


def test_the_command_line_names_the_types_and_kinds_that_there_are() -> None:
    shown, _, batch = (option("providers add", "--type").help or "").partition(".")
    assert set(re.findall(r"[\w-]+", shown)) - {"One", "of"} == set(vendors.TYPES)
    assert set(re.findall(r"\w+", batch)) - {"and", "have", "batch", "jobs"} == set(vendors.BATCH_TYPES)
    assert option("providers add", "--type").default in vendors.TYPES
    for command, name in (("search", "--kind"), ("similar", "kind"), ("duplicates", "--kind")):
        assert set(re.findall(r"\w+", option(command, name).help or "")) >= set(BY_NAME), command


def test_every_kind_has_its_task() -> None:
    tasks = {name: value for name, value in vars(names).items() if name.startswith("EMBED_")}
    assert tasks == {f"EMBED_{one.table.upper()}": f"embed_{one.table}_batch_task" for one in EMBEDDABLES}


def test_a_sweep_and_a_worker_do_the_same_stages() -> None:
    public = {
        name for name, found in inspect.getmembers(sweep, inspect.iscoroutinefunction) if name.endswith("_waiting")
    }
    assert {stage.__name__ for stage in sweep.SWEEP_STAGES} == public | {
        "check_providers",
        "clean_up",
        "fill_spaces",
        "follow_elsewhere",
        "follow_tables",
        "make_words",
        "repair_triggers",
    }


def test_the_page_of_search_names_every_field() -> None:
    page = (ROOT / "docs" / "search.md").read_text()
    for kind, known in SEARCH_FIELDS.items():
        (row,) = re.findall(rf"^\| {BY_KIND[kind].name} \| (.*) \|$", page, re.M)
        assert row == ", ".join(f"`{name}`" for name in known)

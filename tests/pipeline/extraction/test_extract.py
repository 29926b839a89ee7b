"""Messages become knowledge: scored, extracted, versioned when they change, announced when they are saved."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from evervec.domain.extraction.message import IncomingMessage
from evervec.domain.limits import Limits
from evervec.domain.spending import Reason
from evervec.pipeline.budget import setting
from evervec.pipeline.budget.setting import BudgetOwner
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.extraction.extract import extract_knowledge
from evervec.pipeline.extraction.score import score_messages
from evervec.pipeline.resources import Resources
from evervec.queue import names
from evervec.store import messages
from evervec.store.budget import ledger
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider

PROBLEM = "We have a bug: the worker hangs for ever after a restart of NATS."
DECISION = "We decided to use finite fetch timeouts of five seconds in every worker from now on."
CHATTER = "ok thanks"
START = datetime(2026, 1, 1, tzinfo=UTC)


async def save(resources: Resources, dataset: DatasetRef, texts: dict[str, str], *, later: int = 0) -> list[int]:
    """Messages by external id; `later` hours make an edit."""
    edited = START + timedelta(hours=later) if later else None
    incoming = [
        IncomingMessage("telegram:1", key, "dev", START + timedelta(minutes=int(key)), text, edited_at=edited)
        for key, text in texts.items()
    ]
    async with resources.database.transaction() as tx:
        saved = await messages.upsert(tx, dataset.id, incoming)
    return [*saved.created, *saved.changed]


async def extract(resources: Resources, ids: Sequence[int]) -> dict[str, int]:
    await score_messages(resources, ids)
    return await extract_knowledge(resources, ids)


async def rung(resources: Resources) -> Counter[str]:
    """Names of the tasks that were rung for, in the order of the stream."""
    info = await resources.broker.js.stream_info(resources.broker.layout.stream)
    found: Counter[str] = Counter()
    for seq in range(1, info.state.last_seq + 1):
        message = await resources.broker.js.get_msg(resources.broker.layout.stream, seq)
        found[orjson.loads(message.data or b"{}")["task_name"]] += 1
    return found


async def test_scores_tell_signal_from_noise_with_their_factors(
    local: Resources, dataset: DatasetRef, psql: Any
) -> None:
    ids = await save(local, dataset, {"1": PROBLEM, "2": CHATTER})
    assert await score_messages(local, ids) == {"scored": 2}
    rows = await psql.fetch("SELECT signal, score, score_factors::text AS factors FROM messages ORDER BY id")
    assert rows[0]["signal"] in {"signal", "weak_signal"}
    assert rows[1]["signal"] == "noise"
    assert rows[0]["score"] > rows[1]["score"]
    assert orjson.loads(rows[0]["factors"])


async def test_extraction_saves_atoms_with_their_sources_and_first_version(
    local: Resources, dataset: DatasetRef, psql: Any
) -> None:
    ids = await save(local, dataset, {"1": PROBLEM, "2": DECISION, "3": CHATTER})
    await extract(local, ids)
    atoms = await psql.fetch(
        "SELECT a.type, a.content, s.message_id, v.version FROM atoms a JOIN atom_sources s ON s.atom_id = a.id "
        "JOIN atom_versions v ON v.atom_id = a.id ORDER BY a.id"
    )
    assert {(atom["type"], atom["message_id"], atom["version"]) for atom in atoms} == {
        ("problem", ids[0], 1),
        ("decision", ids[1], 1),
    }


async def test_the_hooks_ring_for_atoms_and_messages_after_extraction(local: Resources, dataset: DatasetRef) -> None:
    ids = await save(local, dataset, {"1": PROBLEM, "2": DECISION})
    await extract(local, ids)
    heard = await rung(local)
    assert heard[names.EXTRACT_KNOWLEDGE] == 1
    assert heard[names.EMBED_ATOMS] == 1
    assert heard[names.EMBED_MESSAGES] == 1


async def test_an_edited_message_changes_its_atom_and_keeps_the_older_version(
    local: Resources, dataset: DatasetRef, psql: Any
) -> None:
    ids = await save(local, dataset, {"1": DECISION})
    await extract(local, ids)
    (atom_id,) = [row["id"] for row in await psql.fetch("SELECT id FROM atoms")]
    changed = DECISION.replace("five seconds", "two seconds")
    ids = await save(local, dataset, {"1": changed}, later=1)
    await extract(local, ids)
    rows = await psql.fetch("SELECT version, content FROM atom_versions WHERE atom_id = $1 ORDER BY version", atom_id)
    assert [(row["version"], row["content"]) for row in rows] == [(1, DECISION), (2, changed)]
    assert await psql.fetchval("SELECT content FROM atoms WHERE id = $1", atom_id) == changed


async def test_a_statement_that_was_edited_away_takes_its_atom_with_it(
    local: Resources, dataset: DatasetRef, psql: Any
) -> None:
    ids = await save(local, dataset, {"1": PROBLEM})
    await extract(local, ids)
    assert await psql.fetchval("SELECT count(*) FROM atoms") == 1
    ids = await save(local, dataset, {"1": CHATTER}, later=1)
    await extract(local, ids)
    assert await psql.fetchval("SELECT count(*) FROM atoms") == 0
    assert await psql.fetchval("SELECT count(*) FROM embeddings WHERE kind = 3") == 0


async def test_extracting_again_changes_nothing(local: Resources, dataset: DatasetRef, psql: Any) -> None:
    ids = await save(local, dataset, {"1": PROBLEM, "2": DECISION})
    await extract(local, ids)
    before = await psql.fetch("SELECT id, version, xmin::text FROM atoms ORDER BY id")
    assert await extract(local, ids) == {"messages": 0, "atoms": 0, "topics": 0, "links": 0}
    assert await psql.fetch("SELECT id, version, xmin::text FROM atoms ORDER BY id") == before


async def test_a_failing_embedder_never_fails_extraction(
    bare: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await providers.add(bare, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder"))
    fake.always(None, Fault.BUSY_503, endpoint="/api/embed")
    ids = await save(bare, dataset, {"1": PROBLEM, "2": DECISION})
    counts = await extract(bare, ids)
    assert (counts["messages"], counts["atoms"]) == (2, 2)


async def test_extraction_goes_on_while_nats_is_away(local: Resources, dataset: DatasetRef, psql: Any) -> None:
    await local.broker.client.close()
    ids = await save(local, dataset, {"1": PROBLEM})
    counts = await extract(local, ids)
    assert counts["atoms"] == 1


CHATS = {"ollama": "/api/chat", "openai": "/v1/chat/completions"}


def chatting(type_: str, fake: FakeProvider, *, extracts: bool = True) -> ProviderDraft:
    """Return a provider with a chat model that needs no key."""
    given = ProviderDraft("fake", type_, base_url=fake.url, model="embedder", chat_model="chat", extracts=extracts)
    return replace(given, no_key=type_ != "ollama")


@pytest.mark.parametrize("type_", CHATS)
async def test_a_model_that_answers_garbage_leaves_the_message_waiting_with_its_reason(
    bare: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any, type_: str
) -> None:
    await providers.add(bare, chatting(type_, fake))
    fake.always(None, Fault.CHAT_GARBAGE, endpoint=CHATS[type_])
    ids = await save(bare, dataset, {"1": PROBLEM})
    await score_messages(bare, ids)
    row = await psql.fetchrow(
        "SELECT attempts, last_code, last_error, not_before > now() AS waits, dead_at FROM extract_work"
    )
    assert (row["attempts"], row["last_code"], row["waits"], row["dead_at"]) == (1, "bad_response", True, None)
    assert "fake" in row["last_error"]
    fake.heal()
    await psql.execute("UPDATE extract_work SET not_before = now()")
    assert await score_messages(bare, ids) == {"scored": 1}
    assert await psql.fetchval("SELECT count(*) FROM extract_work") == 0


async def test_without_extract_the_chat_model_is_left_to_media_and_rules_extract(
    bare: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    for number, extracts, text in (("1", False, PROBLEM), ("2", True, DECISION)):
        added = await providers.add(bare, chatting("openai", fake, extracts=extracts))
        assert added.extracts is extracts
        assert (await extract(bare, await save(bare, dataset, {number: text})))["atoms"] == 1
        assert (fake.calls(CHATS["openai"]) > 0) is extracts


@pytest.mark.parametrize("type_", CHATS)
async def test_what_a_chat_model_reads_and_writes_is_in_the_ledger(
    bare: Resources, dataset: DatasetRef, fake: FakeProvider, type_: str
) -> None:
    await providers.add(bare, chatting(type_, fake))
    assert (await extract(bare, await save(bare, dataset, {"1": PROBLEM, "2": DECISION})))["atoms"] == 2
    async with bare.database.read() as tx:
        found = {(line.reason, line.model): line for line in await ledger.lines(tx, ["reason", "model"])}
    line = found[Reason.EXTRACTION, "chat"]
    assert (line.texts, line.requests) == (4, fake.calls(CHATS[type_]))  # each was scored, then read again
    assert line.told_tokens > line.tokens > 0  # the question around the messages counts too
    assert line.output_tokens > 0
    assert line.unpriced_tokens == (0 if type_ == "ollama" else line.told_tokens)


async def test_messages_that_a_ceiling_keeps_from_the_chat_model_wait(
    bare: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await providers.add(bare, chatting("ollama", fake))
    ids = await save(bare, dataset, {"1": PROBLEM, "2": DECISION})
    await setting.set_(bare, BudgetOwner(provider="fake"), Limits(tokens_per_day=5))
    assert await score_messages(bare, ids) == {"scored": 0}
    assert fake.calls(CHATS["ollama"]) == 0
    rows = await psql.fetch("SELECT attempts, last_code, last_error, not_before > now() AS waits FROM extract_work")
    assert [(row["attempts"], row["last_code"], row["waits"]) for row in rows] == [(0, "budget", True)] * 2
    assert "tokens_per_day" in rows[0]["last_error"]
    await setting.set_(bare, BudgetOwner(provider="fake"), Limits(tokens_per_day=1_000_000))
    await psql.execute("UPDATE extract_work SET not_before = now()")
    assert await score_messages(bare, ids) == {"scored": 2}


async def test_one_message_that_the_model_can_not_read_does_not_hold_up_its_neighbours(
    bare: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await providers.add(bare, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder", chat_model="chat"))
    ids = await save(
        bare, dataset, {str(i): f"message {i}: {PROBLEM}" for i in range(1, 6)} | {"6": "unreadable " * 10}
    )
    await psql.execute("UPDATE provider_breakers SET open_until = now()")
    fake.always(lambda text: "unreadable" in text, Fault.CHAT_GARBAGE, endpoint="/api/chat")
    for _ in range(12):
        await psql.execute("UPDATE extract_work SET not_before = now()")
        await score_messages(bare, ids)
    scored = await psql.fetchval("SELECT count(*) FROM messages WHERE scored_revision = revision")
    assert scored == 5
    assert await psql.fetchval("SELECT count(*) FROM extract_work WHERE dead_at IS NOT NULL") == 1


async def test_a_batch_waits_for_neighbours_that_are_still_being_scored(
    local: Resources, dataset: DatasetRef, psql: Any
) -> None:
    first, second = await save(local, dataset, {"1": PROBLEM, "2": DECISION})
    await score_messages(local, [first])
    assert (await extract_knowledge(local, [first]))["messages"] == 0
    await score_messages(local, [second])
    assert (await extract_knowledge(local, [second]))["messages"] == 2


async def test_a_neighbour_that_can_not_be_scored_is_not_waited_for(
    local: Resources, dataset: DatasetRef, psql: Any
) -> None:
    first, second = await save(local, dataset, {"1": PROBLEM, "2": DECISION})
    await score_messages(local, [first])
    await psql.execute(
        "INSERT INTO extract_work (message_id, revision, last_code, last_error, not_before) "
        "VALUES ($1, 1, 'bad_response', 'garbage', now() + interval '1 hour')",
        second,
    )
    assert (await extract_knowledge(local, [first]))["messages"] == 1


async def test_a_chat_model_that_is_away_keeps_no_row_from_its_vector(
    bare: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await providers.add(bare, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder", chat_model="chat"))
    fake.always(None, Fault.NO_MODEL_404, endpoint="/api/chat")
    ids = await save(bare, dataset, {"1": PROBLEM})
    await score_messages(bare, ids)
    row = await psql.fetchrow("SELECT attempts, last_code, not_before > now() AS waits FROM extract_work")
    assert (row["attempts"], row["last_code"], row["waits"]) == (0, "config", True)
    assert (await embed_dataset(bare, dataset.id)).success == 1
    fake.heal()
    await psql.execute("UPDATE extract_work SET not_before = now()")
    assert await score_messages(bare, ids) == {"scored": 1}

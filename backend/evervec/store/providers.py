"""Providers and the embedding spaces that they serve. Each dataset has a space; the database rejects vectors of another width in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from evervec.domain.documents.chunking import CHUNK_TOKENS, TEMPLATE, Recipe
from evervec.domain.encoders import EncoderOptions
from evervec.domain.endpoint import endpoint_digest
from evervec.domain.protocols import ModelProbe
from evervec.domain.vendors import EXTRACTOR_TYPES
from evervec.errors import UnknownProviderError
from evervec.store import breakers
from evervec.store.breakers import Breaker
from evervec.store.database.session import ReadTx, Tx


@dataclass(frozen=True)
class Space:
    """Provider type, model and width; vectors of two spaces are never compared.

    `template` makes the vector text of a chunk, of `chunk_tokens` at most; `text_tokens` is the longest text that the
    model itself takes.
    """

    id: int
    provider: str
    model: str
    dimensions: int
    active: bool
    template: str
    chunk_tokens: int
    text_tokens: int | None

    def __str__(self) -> str:
        said = [f"{self.dimensions} dimensions"]
        if self.chunk_tokens != CHUNK_TOKENS:
            said.append(f"chunks of {self.chunk_tokens} tokens")
        if self.template != TEMPLATE:
            said.append(f"template {self.template!r}")
        return f"{self.provider}/{self.model} ({', '.join(said)})"


@dataclass(frozen=True)
class Provider:
    """A service that embeds and, with a chat model, extracts. No worker calls it while the breaker of its endpoint is open.

    `dimensions` is the requested vector width; None takes the model's own. `encoder` says how a model in a folder is run.
    `extracts` is whether its chat model, if it has one, scores and extracts. `refused_options` and `request_texts` were
    learned from the server. `listed_usd` is what a price list says of a million tokens; `usd_per_million_tokens` is the
    operator's own word. `limited`: a provider or a dataset has a budget; `tokens_per_minute` is this provider's own limit.
    """

    id: UUID
    name: str
    type: str
    base_url: str | None
    model: str
    chat_model: str | None
    api_key_encrypted: bytes | None
    space: Space
    usd_per_million_tokens: float | None
    dimensions: int | None
    listed_usd: float | None
    limited: bool
    tokens_per_minute: int | None
    encoder: EncoderOptions
    extracts: bool
    endpoint: bytes
    refused_options: Sequence[str]
    request_texts: int | None
    breaker: Breaker

    @property
    def chats(self) -> bool:
        """Return whether its chat model scores and extracts; else local rules do."""
        return self.extracts and self.chat_model is not None and self.type in EXTRACTOR_TYPES


@dataclass(frozen=True)
class ProviderDraft:
    """A provider as it is asked for, before it has answered a probe.

    Without a `model` it gets the default of its type. `no_key` says that a server of one's own needs none. `dimensions` is the width to ask a model for that has several.
    `template` and `chunk_tokens` belong to the provider's space.
    """

    name: str
    type: str
    base_url: str | None = None
    model: str | None = None
    chat_model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    no_key: bool = False
    template: str | None = None
    chunk_tokens: int | None = None
    usd_per_million_tokens: float | None = None
    dimensions: int | None = None
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    extracts: bool = True


_SELECT_PROVIDERS = """
SELECT p.id, p.name, p.type, p.base_url, p.model, p.chat_model, p.api_key_encrypted,
       p.usd_per_million_tokens, p.dimensions, p.listed_usd, p.encoder::text AS encoder, p.extracts, p.endpoint, p.refused_options,
       p.request_texts,
       -- whether there is any budget at all: without one nothing is taken before a request
       EXISTS (SELECT FROM budgets) AS limited,
       (SELECT u.tokens_per_minute FROM budgets u WHERE u.provider_id = p.id) AS tokens_per_minute,
       coalesce(extract(epoch FROM greatest(b.open_until - now(), interval '0')), 0)::float8 AS seconds,
       b.code, b.error, coalesce(b.failures, 0) AS failures,
       s.id AS space_id, s.provider, s.model AS space_model, s.dimensions AS width, s.state = 'active' AS active, s.template,
       s.chunk_tokens, s.text_tokens
FROM llm_providers p LEFT JOIN provider_breakers b ON b.endpoint = p.endpoint
"""
SELECT_PROVIDERS = f"{_SELECT_PROVIDERS} JOIN embedding_spaces s ON s.id = p.space_id"
# a provider serves every space of its model and width, whatever the texts are made by; one that is named comes first, then
# the one that was used last
SELECT_SERVING = f"""
{_SELECT_PROVIDERS} JOIN embedding_spaces o ON o.id = p.space_id
JOIN embedding_spaces s ON (s.provider, s.model, s.dimensions, s.metric) = (o.provider, o.model, o.dimensions, o.metric)
WHERE s.id = $1 AND ($3::uuid IS NULL OR p.id = $3)
ORDER BY p.id IS NOT DISTINCT FROM $2 DESC, p.used_at DESC, p.name LIMIT 1
"""


SPACE_COLUMNS = ("space_id", "provider", "space_model", "width", "active", "template", "chunk_tokens", "text_tokens")
BREAKER_COLUMNS = ("seconds", "code", "error", "failures")


def _provider(row: Mapping[str, Any]) -> Provider:
    values = dict(row)
    space = Space(*(values.pop(name) for name in SPACE_COLUMNS))
    breaker = Breaker(*(values.pop(name) for name in BREAKER_COLUMNS))
    values["encoder"] = EncoderOptions(**orjson.loads(values["encoder"]))
    return Provider(**values, space=space, breaker=breaker)


async def every(tx: ReadTx) -> list[Provider]:
    """Return all providers, oldest first."""
    return [_provider(row) for row in await tx.fetch(SELECT_PROVIDERS + " ORDER BY p.created_at, p.name")]


async def by_id(tx: ReadTx, provider_id: UUID) -> Provider:
    """Return a provider. Raises `UnknownProviderError`."""
    row = await tx.fetchrow(SELECT_PROVIDERS + " WHERE p.id = $1", provider_id)
    if row is None:
        raise UnknownProviderError(provider=str(provider_id), known=await _known(tx))
    return _provider(row)


async def by_name(tx: ReadTx, name: str) -> Provider:
    """Return a provider. Raises `UnknownProviderError`."""
    row = await tx.fetchrow(SELECT_PROVIDERS + " WHERE p.name = $1", name)
    if row is None:
        raise UnknownProviderError(provider=name, known=await _known(tx))
    return _provider(row)


async def active(tx: ReadTx) -> Provider | None:
    """Return the provider that embeds into the default space; the one used last if there are several."""
    space_id = await tx.fetchval("SELECT id FROM embedding_spaces WHERE state = 'active'")
    return None if space_id is None else await serving(tx, space_id)


SELECT_SPACES = """
SELECT id, provider, model, dimensions, state = 'active', template, chunk_tokens, text_tokens FROM embedding_spaces
"""


async def space(tx: ReadTx, space_id: int) -> Space:
    """Return a space."""
    row = await tx.fetchrow(f"{SELECT_SPACES} WHERE id = $1", space_id)
    assert row is not None  # datasets refer to it
    return Space(*row)


async def every_space(tx: ReadTx) -> list[Space]:
    """Return all spaces, oldest first."""
    return [Space(*row) for row in await tx.fetch(f"{SELECT_SPACES} ORDER BY id")]


async def ensure_space(tx: Tx, like: Space, recipe: Recipe) -> Space:
    """Return the space of the same model with another template or size of chunks, made if there is none."""
    row = await tx.fetchrow(
        "INSERT INTO embedding_spaces AS s (provider, model, dimensions, text_tokens, template, chunk_tokens) "
        "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (provider, model, dimensions, metric, template, chunk_tokens) "
        "DO UPDATE SET text_tokens = coalesce($4, s.text_tokens) RETURNING id",
        like.provider,
        like.model,
        like.dimensions,
        like.text_tokens,
        recipe.template,
        recipe.tokens,
    )
    assert row is not None  # it is inserted or updated
    return await space(tx, row["id"])


async def serving(
    tx: ReadTx, space_id: int, preferred: UUID | None = None, *, only: UUID | None = None
) -> Provider | None:
    """Return the provider that embeds into a space, with that space: the preferred one if it can; None if there is none.

    `only` asks for one provider alone.
    """
    row = await tx.fetchrow(SELECT_SERVING, space_id, preferred, only)
    return None if row is None else _provider(row)


async def add(
    tx: Tx,
    draft: ProviderDraft,
    probe: ModelProbe,
    *,
    api_key_encrypted: bytes | None = None,
    endpoint: bytes | None = None,
) -> Provider:
    """Save a provider under its name, new or again, with the space that its probe found; close its breaker.

    A property of the space that is None stays as it was for a provider of that name and model; else it gets the default.
    `endpoint` is None for a provider without a key.
    """
    space_id = await _ensure_space(tx, draft, probe)
    endpoint = endpoint or endpoint_digest(draft.type, draft.base_url, draft.model or "")
    provider_id = await tx.fetchval(
        """
        INSERT INTO llm_providers
            (name, type, base_url, model, chat_model, api_key_encrypted, space_id, usd_per_million_tokens, dimensions,
             endpoint, encoder, refused_options, extracts, used_at)
        -- one that was added is not used yet: it does not take over the rows of another provider of the same model
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::jsonb, $12, $13, 'epoch')
        ON CONFLICT (name) DO UPDATE SET
            type = EXCLUDED.type, base_url = EXCLUDED.base_url, model = EXCLUDED.model, chat_model = EXCLUDED.chat_model,
            api_key_encrypted = EXCLUDED.api_key_encrypted, space_id = EXCLUDED.space_id,
            usd_per_million_tokens = EXCLUDED.usd_per_million_tokens, dimensions = EXCLUDED.dimensions,
            endpoint = EXCLUDED.endpoint, refused_options = EXCLUDED.refused_options, request_texts = NULL,
            checked_at = NULL, encoder = EXCLUDED.encoder, extracts = EXCLUDED.extracts
        RETURNING id
        """,
        draft.name,
        draft.type,
        draft.base_url,
        draft.model,
        draft.chat_model,
        api_key_encrypted,
        space_id,
        draft.usd_per_million_tokens,
        draft.dimensions,
        endpoint,
        orjson.dumps(draft.encoder.given()).decode(),
        list(probe.refused_options),
        draft.extracts,
    )
    await breakers.close(tx, endpoint)
    return await by_id(tx, provider_id)


ENSURE_SPACE = """
WITH former AS (
    SELECT s.template, s.chunk_tokens FROM llm_providers p JOIN embedding_spaces s ON s.id = p.space_id
    WHERE p.name = $9 AND (s.provider, s.model, s.dimensions) = ($1, $2, $3)
    UNION ALL
    SELECT s.template, s.chunk_tokens FROM embedding_spaces s
    WHERE (s.provider, s.model, s.dimensions) = ($1, $2, $3) AND s.state = 'active'
)
INSERT INTO embedding_spaces AS s (provider, model, dimensions, text_tokens, template, chunk_tokens)
VALUES ($1, $2, $3, $4, coalesce($5, (SELECT template FROM former LIMIT 1), $7::text),
        coalesce($6, (SELECT chunk_tokens FROM former LIMIT 1), $8::integer))
ON CONFLICT (provider, model, dimensions, metric, template, chunk_tokens) DO UPDATE SET
    text_tokens = coalesce($4, s.text_tokens)
RETURNING id
"""


async def _ensure_space(tx: Tx, draft: ProviderDraft, probe: ModelProbe) -> int:
    space_id: int = await tx.fetchval(
        ENSURE_SPACE,
        draft.type,
        f"{draft.model} [{probe.variant}]" if probe.variant else draft.model,
        probe.dimensions,
        probe.text_tokens,
        draft.template,
        draft.chunk_tokens,
        TEMPLATE,
        CHUNK_TOKENS,
        draft.name,
    )
    await tx.execute("SELECT evervec_add_space($1)", space_id)
    return space_id


async def set_listed_price(tx: Tx, provider_id: UUID, usd: float | None) -> None:
    """Save what a price list says of a million tokens."""
    await tx.execute("UPDATE llm_providers SET listed_usd = $2 WHERE id = $1", provider_id, usd)


async def remove(tx: Tx, name: str) -> None:
    """Delete a provider; vectors stay. Raises `UnknownProviderError`."""
    if await tx.fetchval("DELETE FROM llm_providers WHERE name = $1 RETURNING id", name) is None:
        raise UnknownProviderError(provider=name, known=await _known(tx))
    await breakers.remove_unused(tx)


async def use(tx: Tx, provider_id: UUID) -> None:
    """Make a provider the default."""
    await tx.execute("UPDATE llm_providers SET used_at = clock_timestamp() WHERE id = $1", provider_id)


async def learn_request_texts(tx: Tx, endpoint: bytes, texts: int) -> None:
    """Keep how many texts a request to an endpoint may have; the smallest number that it told counts."""
    await tx.execute(
        "UPDATE llm_providers SET request_texts = least(request_texts, $2) WHERE endpoint = $1 "
        "AND coalesce(request_texts > $2, true)",
        endpoint,
        texts,
    )


async def _known(tx: ReadTx) -> str:
    return ", ".join(row["name"] for row in await tx.fetch("SELECT name FROM llm_providers ORDER BY 1")) or "none yet"

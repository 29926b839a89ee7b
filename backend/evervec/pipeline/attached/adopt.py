"""Vectors that a table has already are adopted: a sample of them is embedded again, and if both agree none is paid for twice.

The vectors are stamped by whoever takes the existing rows in, in the transaction that writes their chunks: see `work`.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain import packing
from evervec.domain.attachment import AttachedTable, Key
from evervec.domain.spending import Reason
from evervec.domain.text import is_blank
from evervec.domain.vectors import check_vectors
from evervec.errors import Refused
from evervec.pipeline import chunking
from evervec.pipeline.attached import detach
from evervec.pipeline.attached.attach import AttachOptions, attach
from evervec.pipeline.attached.progress import Progress
from evervec.pipeline.attached.reading import read_rows
from evervec.pipeline.budget.allowance import Load
from evervec.pipeline.budget.meter import Meter
from evervec.pipeline.captures import opening
from evervec.pipeline.chunking import Chunker
from evervec.pipeline.resources import Resources
from evervec.sources.attached import records
from evervec.sources.attached.description import AttachmentDescription
from evervec.store import sources
from evervec.store.attached import adoption as adopting
from evervec.store.attached import attachments, shape
from evervec.store.attached.adoption import Adoption, VectorColumn
from evervec.store.database.session import Tx

LEAST_COSINE = 0.99
"""The similarity that 95 of 100 sampled vectors must have with those that the model makes now."""

SAMPLED_SHARE = 0.01
LEAST_SAMPLE = 50
READ_TOGETHER = 256

LARGEST_SAMPLED_TEXT = 1_000_000
"""Bytes of a text beyond which a row is several chunks without reading it."""

SAMPLED_BYTES = 16_000_000


@dataclass(frozen=True)
class Cosines:
    """How the similarities of a sample are distributed."""

    min: float
    p5: float
    median: float
    max: float


@dataclass(frozen=True)
class Sample:
    """Rows that were drawn: `compared` ones, those of `several` chunks or without a text, and vectors that are `unusable`."""

    drawn: int
    compared: int
    several: int
    unusable: int
    cosine: Cosines


@dataclass(frozen=True)
class Adopted:
    """What is adopted from which column, of `vectors` in `rows` rows, and how the sample agreed; `id` is the attachment."""

    id: UUID | None
    table: str
    column: str
    model: str
    rows: int
    vectors: int
    least_cosine: float
    sample: Sample


async def adopt(
    resources: Resources,
    table: str,
    column: str,
    model: str,
    *,
    project: str | None = None,
    described: AttachmentDescription | None = None,
    dry: bool = False,
) -> Adopted:
    """Check the vectors of a column against a model, and have them adopted as existing rows are taken in.

    With `described` the table is attached for that, so that no worker embeds a row before. A dry run embeds the sample, too,
    and changes nothing. Raises `Refused` for vectors that do not match, another model than the active one, and a table that is
    not attached, `SourceError` for a column that holds no vectors, a `ProviderError` if the sample can not be embedded.
    """
    chunker = await _chunker(resources, table, project)
    _require_model(chunker, model)
    source_id, found = await _table(resources, table, project, described, column, model)
    async with resources.database.read() as tx:
        given = await adopting.column(tx, found, column)
        counted, vectors = await adopting.count(tx, found, given)
    sample = await _sample(resources, chunker, found, given, vectors)
    done = Adopted(source_id, found.label, column, model, counted, vectors, LEAST_COSINE, sample)
    _require_match(done, chunker)
    space = chunker.provider.space
    adoption = Adoption(column, given.type, space.id, space.dimensions, fresh=described is not None)
    if dry:
        return done
    if described is not None:
        attached = await attach(resources, described, AttachOptions(adoption=adoption))
        return replace(done, id=attached.id)
    assert source_id is not None
    await resources.database.with_retries(lambda tx: _start(tx, source_id, counted, adoption))
    return done


async def _chunker(resources: Resources, name: str, project: str | None) -> Chunker:
    """Return the chunker of the datasets that a table fills; of one that is not attached, that of new datasets."""
    try:
        record = await detach.find(resources, name, project)
    except Refused:
        return await chunking.default(resources)
    async with resources.database.read() as tx:
        filled = [one.id for one in (await sources.filled(tx, record.id)).values() if one.is_live]
    return await chunking.by_id(resources, filled[0]) if filled else await chunking.default(resources)


def _require_model(chunker: Chunker, model: str) -> None:
    active = chunker.provider
    if active.space.model != model:
        raise Refused(
            reason=f"Vectors of {model} can be adopted only while it embeds; the active model is {active.space.model}. Add "
            f"it with `evervec providers add NAME --model {model}`, then `evervec providers use NAME`."
        )


async def _table(
    resources: Resources,
    name: str,
    project: str | None,
    described: AttachmentDescription | None,
    column: str,
    model: str,
) -> tuple[UUID | None, AttachedTable]:
    try:
        record = await detach.find(resources, name, project)
    except Refused as error:
        if described is not None:
            return None, (await shape.probe(resources.database, described)).table
        raise Refused(
            reason=f"{error} To attach it and adopt its vectors at once: `evervec adopt {name} --column {column} --model "
            f"{model} --text SQL --project NAME --dataset NAME`."
        ) from error
    if described is not None:
        raise Refused(reason=f"Table {name} is attached already: leave out how its text is made and where it belongs.")
    if record.url_encrypted is not None:
        raise Refused(reason=f"Table {name} is in another database: vectors are adopted of tables in this one alone.")
    found = await (await opening.opened(resources, record)).locate()
    if found is None:
        raise Refused(
            reason=f"Table {name} does not exist any more. `evervec detach {name}` removes what is left of it."
        )
    return record.id, found


async def _sample(
    resources: Resources, chunker: Chunker, table: AttachedTable, given: VectorColumn, vectors: int
) -> Sample:
    """Draw rows, embed those that are one chunk, and compare. Raises `Refused` if none can be compared."""
    dimensions = chunker.provider.space.dimensions
    async with resources.database.read() as tx:
        drawn = await adopting.sample(tx, table, given, max(LEAST_SAMPLE, ceil(vectors * SAMPLED_SHARE)))
    widths, usable, cosines = Counter[int | None](), 0, [np.empty(0)]
    for start in range(0, len(drawn), READ_TOGETHER):
        async with resources.database.read() as tx:
            found = await adopting.read(tx, table, given, dimensions, drawn[start : start + READ_TOGETHER])
        widths += found.widths
        usable += len(found.keys)
        said = await _texts(resources, chunker, table, found.keys)
        made = await _embedded(resources, chunker, list(said.values()))
        own = dict(zip(found.keys, found.vectors, strict=True))
        cosines.append(_cosines(np.stack([own[key] for key in said]), made) if said else np.empty(0))
    _require_vectors(table, given, len(drawn), usable, widths, dimensions)
    compared = np.concatenate(cosines)
    if not len(compared):
        raise Refused(
            reason=f"Nothing of table {table.label} can be adopted: of {len(drawn)} rows with a vector none has a text that is "
            "one chunk. Vectors of longer texts are not those of their chunks."
        )
    several = usable - len(compared)
    return Sample(len(drawn), len(compared), several, len(drawn) - usable, _distribution(compared))


def _require_vectors(
    table: AttachedTable, given: VectorColumn, drawn: int, usable: int, widths: Counter[int | None], dimensions: int
) -> None:
    if usable:
        return
    width = widths.most_common(1)[0][0] if widths else None
    if not drawn:
        reason = "it holds no vectors."
    elif width is None or width == dimensions:
        reason = f"none of {drawn} values is a vector: they are no numbers, not finite, or zero."
    else:
        reason = f"its vectors have {width} dimensions, those of the active model {dimensions}."
    raise Refused(reason=f"Column {given.name} of table {table.label} can not be adopted: {reason}")


async def _texts(resources: Resources, chunker: Chunker, table: AttachedTable, keys: Sequence[Key]) -> dict[Key, str]:
    """Return what is embedded of rows that are one chunk."""
    read = await read_rows(
        resources.database, table, keys, most_bytes=LARGEST_SAMPLED_TEXT, together_bytes=SAMPLED_BYTES
    )
    documents = {
        key: records.document_of(table, row) for key, row in read.rows.items() if row.text and not is_blank(row.text)
    }
    chunked = await asyncio.to_thread(chunker.chunk, list(documents.values()))
    return {key: drafts[0].vector_text for key, (_, drafts) in zip(documents, chunked, strict=True) if len(drafts) == 1}


async def _embedded(resources: Resources, chunker: Chunker, texts: Sequence[str]) -> NDArray[np.float32]:
    provider = chunker.provider
    embedder = resources.clients.embedder(provider)
    sizes = await asyncio.to_thread(chunker.count_tokens, texts)
    made = np.zeros((len(texts), provider.space.dimensions), np.float32)
    meter = Meter(resources.database, provider, Reason.PROBE)
    for request in packing.pack(sizes, embedder.limits):
        chosen = [texts[place] for place in request]
        load = Load(len(request), sum(sizes[place] for place in request))
        answer = await meter.send(partial(embedder.embed, chosen), {None: load}, whatever=True)
        check_vectors(answer, count=len(request), dimensions=provider.space.dimensions, provider=provider.name)
        made[request] = answer
    await meter.flush()
    return made


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return `(n,) float64`: the similarity of n pairs of `(n, dim) float32`, 0 where one is not finite or zero."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found = np.zeros(len(lengths))
    np.divide(np.sum(left * right, axis=1), lengths, out=found, where=np.isfinite(lengths) & (lengths > 0))
    return found


def _distribution(cosines: NDArray[np.float64]) -> Cosines:
    least, low, middle, most = np.percentile(cosines, [0, 5, 50, 100])
    return Cosines(float(least), float(low), float(middle), float(most))


def _require_match(done: Adopted, chunker: Chunker) -> None:
    cosine = done.sample.cosine
    if cosine.p5 < LEAST_COSINE:
        raise Refused(
            reason=f"The vectors of {done.table}.{done.column} are not those that {done.model} makes of its texts: of "
            f"{done.sample.compared} sampled rows the cosines are min {cosine.min:.3f}, p5 {cosine.p5:.3f}, median "
            f"{cosine.median:.3f}, max {cosine.max:.3f}, and p5 has to be {LEAST_COSINE}. The texts have to be the same, too: "
            f"see --text and --title, and the template {chunker.recipe.template!r} of the active space "
            "(`evervec providers add … --template '{text}'` embeds the text alone)."
        )


async def _start(tx: Tx, source_id: UUID, expected: int, adoption: Adoption) -> None:
    """Let the existing rows of an attachment be walked again; whoever walks them now finds it replaced."""
    record = await sources.by_id(tx, source_id)
    if record is None:
        raise Refused(reason="The table was detached meanwhile.")
    before = Progress.load(record.cursor)
    progress = replace(before.again(expected, compare=False), error=None, generation=before.generation + 1)
    await attachments.merge_cursor(tx, source_id, progress.dump())
    await adopting.save(tx, source_id, adoption)


async def state(resources: Resources, source_id: UUID) -> Adoption | None:
    """Return how far the adoption of an attachment is, None if nothing was adopted."""
    async with resources.database.read() as tx:
        return await adopting.of(tx, source_id)

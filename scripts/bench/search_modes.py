"""How well each mode of search finds, through PostgreSQL as it is: MRR@10 by meaning, by words, and as `auto` decides, by corpus."""

from collections.abc import Mapping, Sequence
from statistics import mean

from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from scripts.bench import quality
from scripts.bench.pool import PoolText
from scripts.bench.quality import MODELS, K, Question
from scripts.bench.report import Line, at_least
from scripts.bench.stack import Bench, copy_messages, dataset

SEARCH_MODES = ("vector", "words", "auto")
TOLERANCE = 0.02
"""So much worse than the better of meaning and words may `auto` be, by corpus."""
WHOLE = "all"

Reciprocals = Mapping[str, Sequence[float]]
"""By mode, 1 / place of the first answer to each question, 0 where it is not among the first ten."""


async def run(bench: Bench) -> list[Line]:
    """Ask the questions in every mode, each about its corpus, with every model of this machine. Raises `ValueError` without them."""
    if bench.questions is None:
        raise ValueError("give a question set with --questions FILE, and its corpora with --corpus NAME=PATH.")
    questions = quality.read(bench.questions)
    texts = quality.texts_of(questions, bench.corpora)[: bench.most_rows]
    lines: list[Line] = []
    for model in MODELS:
        async with bench.resources(f"modes_{model}") as resources:
            found = await _ask(resources, model, questions, texts)
        for corpus in sorted({one.corpus for one in questions}):
            chosen = [place for place, one in enumerate(questions) if one.corpus == corpus]
            lines.append(_within(model, corpus, {mode: [found[mode][at] for at in chosen] for mode in SEARCH_MODES}))
        lines += _better(model, found)
    return lines


async def _ask(
    resources: Resources, model: str, questions: Sequence[Question], texts: Sequence[PoolText]
) -> Reciprocals:
    type_, name = MODELS[model]
    if (await resources.provider()).type != type_ or name not in (None, (await resources.provider()).model):
        await providers.add(resources, ProviderDraft(f"bench-{model}", type_, model=name))
        await providers.use(resources, f"bench-{model}")
    datasets = {corpus: await _filled(resources, corpus, texts) for corpus in sorted({one.corpus for one in texts})}
    found: dict[str, list[float]] = {mode: [] for mode in SEARCH_MODES}
    for one in questions:
        ids = {str(place): text.id for place, text in enumerate(text for text in texts if text.corpus == one.corpus)}
        for mode in SEARCH_MODES:
            answer = await search(resources, one.question, dataset=datasets[one.corpus].name, k=K, mode=mode)
            places = [
                number
                for number, hit in enumerate(answer, 1)
                if hit.origin and ids[hit.origin.external_id] in one.answers
            ]
            found[mode].append(1 / places[0] if places else 0.0)
    return found


async def _filled(resources: Resources, corpus: str, texts: Sequence[PoolText]) -> DatasetRef:
    target = await dataset(resources, corpus)
    await copy_messages(resources, target, [one.text for one in texts if one.corpus == corpus])
    await embed_dataset(resources, target.id)
    return await dataset(resources, corpus)


def _within(model: str, corpus: str, found: Reciprocals) -> Line:
    vector, words, auto = (mean(found[mode]) for mode in SEARCH_MODES)
    least = max(vector, words) - TOLERANCE
    note = f"vector {vector:.3f}, words {words:.3f}, auto {auto:.3f}; {len(found['auto'])} questions"
    name = f"{model}, {corpus}, auto; better of vector and words, less {TOLERANCE}"
    return Line(name, auto, least, "MRR@10", auto / max(least, 0.001), at_least(1.0), note)


def _better(model: str, found: Reciprocals) -> list[Line]:
    vector, words, auto = (mean(found[mode]) for mode in SEARCH_MODES)
    note = f"{len(found['auto'])} questions"
    return [
        Line(f"{model}, {WHOLE}, auto; vector", auto, vector, "MRR@10", auto / max(vector, 0.001), at_least(1.0), note),
        Line(f"{model}, {WHOLE}, auto; words", auto, words, "MRR@10", auto / max(words, 0.001), at_least(1.0), note),
    ]

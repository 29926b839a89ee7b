"""How well each model of this machine finds: MRR@10 and R@10 of questions whose answers are known, by corpus and language."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import orjson
from numpy.typing import NDArray

from evervec.domain.protocols import Embedder
from evervec.domain.vendors import LOCAL, ONNX
from evervec.embedders.catalog import open_embedder
from scripts.bench import pool
from scripts.bench.pool import PoolText
from scripts.bench.report import Line, Promise, at_least
from scripts.bench.stack import Bench

K = 10
BASE = "wordllama"
MODELS = {BASE: (LOCAL.type, LOCAL.model), "minilm": (ONNX.type, "minilm"), "multilingual": (ONNX.type, "multilingual")}
ASKED = {"en": "English", "de": "across languages", "ru": "across languages", "exact": "exact names"}

BEFORE: Mapping[tuple[str, str], tuple[float, float]] = {
    (BASE, "English"): (0.33, 0.62),
    (BASE, "across languages"): (0.11, 0.25),
    (BASE, "exact names"): (0.85, 0.94),
    ("minilm", "English"): (0.59, 0.84),
    ("minilm", "across languages"): (0.07, 0.31),
    ("minilm", "exact names"): (0.80, 1.0),
    ("multilingual", "English"): (0.31, 0.57),
    ("multilingual", "across languages"): (0.61, 0.81),
    ("multilingual", "exact names"): (0.62, 0.88),
}
"""MRR@10 and R@10 of 113 questions on 2026-11-30; the question set that is given out holds 59 of them."""

PROMISES = {("minilm", "English"): at_least(1.3), ("multilingual", "across languages"): at_least(1.5)}
"""What a better model is for, against WordLlama on the same questions."""


@dataclass(frozen=True)
class Question:
    """A question, what it is about, and each text that answers it."""

    question: str
    corpus: str
    language: str
    answers: frozenset[str]


@dataclass(frozen=True)
class Found:
    """The place of the first answer among the nearest texts, from 1; 0 where it is not among the first ten."""

    question: Question
    place: int

    @property
    def reciprocal(self) -> float:
        """Return what the question adds to the mean reciprocal rank."""
        return 1 / self.place if self.place else 0.0


async def run(bench: Bench) -> list[Line]:
    """Ask every model the questions, each about its corpus. Raises `ValueError` without a question set."""
    if bench.questions is None:
        raise ValueError("give a question set with --questions FILE, and its corpora with --corpus NAME=PATH.")
    questions = read(bench.questions)
    texts = texts_of(questions, bench.corpora)[: bench.most_rows]
    found = {model: await _ask(model, questions, texts) for model in MODELS}
    first, *rest = _against_before(found)
    return [replace(first, note=f"{len(texts):,} texts, {len(questions)} questions"), *rest, *_against_base(found)]


def read(path: Path) -> list[Question]:
    """Return a question set: one JSON object a line, `{"question", "corpus", "language", "answer_id"}`."""
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    return [Question(row["question"], row["corpus"], row["language"], _answers(row["answer_id"])) for row in rows]


def _answers(given: str | Sequence[str]) -> frozenset[str]:
    return frozenset([given] if isinstance(given, str) else given)


def texts_of(questions: Sequence[Question], corpora: Mapping[str, Path]) -> list[PoolText]:
    """Return the texts that questions are about. Raises `ValueError` for a corpus that was not given."""
    return list(_pool(questions, corpora))


def _pool(questions: Sequence[Question], corpora: Mapping[str, Path]) -> Iterable[PoolText]:
    for name in sorted({one.corpus for one in questions}):
        if name not in corpora and name != pool.STDLIB:
            raise ValueError(f"the questions are about {name!r}: give it with --corpus {name}=PATH.")
        answers = {answer for one in questions if one.corpus == name for answer in one.answers}
        yield from pool.corpus(name, corpora.get(name), answers)


async def _ask(model: str, questions: Sequence[Question], texts: Sequence[PoolText]) -> list[Found]:
    type_, name = MODELS[model]
    embedder = open_embedder(type_, model=name, name=model)
    try:
        vectors = await _embedded(embedder, [one.text for one in texts])
        asked = [await embedder.embed_query(one.question) for one in questions]
    finally:
        await embedder.aclose()
    return [Found(one, place(one, texts, vectors @ vector[0])) for one, vector in zip(questions, asked, strict=True)]


async def _embedded(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    size = embedder.limits.texts
    return np.vstack([await embedder.embed(texts[at : at + size]) for at in range(0, len(texts), size)])


def place(question: Question, texts: Sequence[PoolText], scores: NDArray[np.float32]) -> int:
    """Return the place of the first answer among the ten best texts of the question's corpus, from 1, or 0."""
    own = [at for at in np.argsort(-scores, kind="stable") if texts[at].corpus == question.corpus][:K]
    return next((number for number, at in enumerate(own, 1) if texts[at].id in question.answers), 0)


def _against_before(found: Mapping[str, Sequence[Found]]) -> list[Line]:
    lines = []
    for model, all_of_it in found.items():
        for kind, some in _by(all_of_it, lambda one: ASKED[one.question.language]).items():
            for unit, now, before in zip(("MRR@10", "R@10"), measured(some), BEFORE[model, kind], strict=True):
                name = f"{model}, {kind}; measured before"
                lines.append(Line(name, now, before, unit, now / before))
    return lines


def _against_base(found: Mapping[str, Sequence[Found]]) -> list[Line]:
    lines = []
    for model in (name for name in found if name != BASE):
        mine, base = found[model], found[BASE]
        for kind in dict.fromkeys(ASKED.values()):
            lines += _compared(f"{model}, {kind}", *_some(mine, base, kind, None), PROMISES.get((model, kind)))
            for corpus in sorted({one.question.corpus for one in mine}):
                lines += _compared(f"{model}, {kind}, {corpus}", *_some(mine, base, kind, corpus))
    return lines


def _some(
    mine: Sequence[Found], base: Sequence[Found], kind: str, corpus: str | None
) -> tuple[list[Found], list[Found]]:
    def wanted(one: Found) -> bool:
        return ASKED[one.question.language] == kind and corpus in (None, one.question.corpus)

    return [one for one in mine if wanted(one)], [one for one in base if wanted(one)]


def _compared(name: str, mine: Sequence[Found], base: Sequence[Found], promise: Promise | None = None) -> list[Line]:
    if not mine:
        return []
    (mrr, recall), (base_mrr, base_recall) = measured(mine), measured(base)
    note = f"{len(mine)} questions; R@10 {recall:.2f}, {BASE} {base_recall:.2f}"
    return [Line(f"{name}; {BASE}", mrr, base_mrr, "MRR@10", mrr / max(base_mrr, 0.01), promise, note)]


def measured(found: Sequence[Found]) -> tuple[float, float]:
    """Return MRR@10 and R@10."""
    return mean(one.reciprocal for one in found), mean(one.place > 0 for one in found)


def _by(found: Sequence[Found], key: Callable[[Found], str]) -> dict[str, list[Found]]:
    grouped: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        grouped[key(one)].append(one)
    return grouped

"""The answers of a chat model: the JSON schemas that it is given, and the checks that make knowledge of an answer."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from evervec.domain.extraction.knowledge import (
    AtomDraft,
    AtomType,
    DatasetKnowledge,
    Extraction,
    LinkDraft,
    LinkType,
    MessageText,
    Score,
    Signal,
    TopicDraft,
)
from evervec.domain.text import clean, is_blank

Whole = TypeVar("Whole", bound=BaseModel)


class UnusableAnswerError(ValueError):
    """An answer that does not fit the messages; its text is shown to the model and to people."""


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{value} is not between 0 and 1")
    return value


def _words(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        text = clean(text).strip()
        if is_blank(text) or len(text) > limit:
            raise ValueError(f"must have 1 to {limit} characters")
        return text

    return AfterValidator(check)


# Checked here and not declared in the schema: a length limit becomes a grammar so large that servers refuse it.
Share = Annotated[float, AfterValidator(_share)]
ShortText = Annotated[str, _words(200)]
LongText = Annotated[str, _words(4000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FactorAnswer(_Part):
    """One reason of a score."""

    name: ShortText
    share: float


class ScoreAnswer(_Part):
    """The score of one message."""

    id: int
    value: Share
    signal: Signal
    factors: list[FactorAnswer]


class ScoresAnswer(_Part):
    """The whole answer to prompts/score.md."""

    scores: list[ScoreAnswer]


class TopicAnswer(_Part):
    """A topic of the messages."""

    name: ShortText
    description: LongText


class AtomAnswer(_Part):
    """One statement."""

    type: AtomType
    title: ShortText
    content: LongText
    confidence: Share
    message_ids: list[int]
    topic: ShortText | None


class LinkAnswer(_Part):
    """A link between two atoms."""

    source: int
    type: LinkType
    confidence: Share
    target: int | None
    target_atom_id: int | None


class ExtractionAnswer(_Part):
    """The whole answer to prompts/extract.md."""

    topics: list[TopicAnswer]
    atoms: list[AtomAnswer]
    links: list[LinkAnswer]


def read_scores(text: str, messages: Sequence[MessageText]) -> list[Score]:
    """Return one score per message, in the messages' order. Raise `UnusableAnswerError`."""
    answer = _parse(ScoresAnswer, text)
    scores = {score.id: score for score in answer.scores}
    wanted = [message.message_id for message in messages]
    if len(scores) != len(answer.scores):
        raise UnusableAnswerError("scores: an id is scored twice")
    if missing := [number for number in wanted if number not in scores]:
        raise UnusableAnswerError(f"scores: no score for the ids {missing[:20]}")
    if unknown := sorted(scores.keys() - set(wanted)):
        raise UnusableAnswerError(f"scores: there are no messages with the ids {unknown[:20]}")
    return [_score(scores[number]) for number in wanted]


def _score(answer: ScoreAnswer) -> Score:
    """Return the score with the model's shares scaled so that they add up to its value; one factor `model` where it gave none."""
    shares: dict[str, float] = {}
    for factor in answer.factors:
        shares[factor.name] = shares.get(factor.name, 0.0) + abs(factor.share)
    total = sum(shares.values())
    if not 0 < total < float("inf"):
        shares, total = {"model": answer.value}, answer.value or 1.0
    scaled = {name: share * answer.value / total for name, share in shares.items()}
    return Score(message_id=answer.id, value=answer.value, signal=answer.signal, factors=scaled)


def read_extraction(text: str, messages: Sequence[MessageText], known: DatasetKnowledge) -> Extraction:
    """Return topics, atoms and links, every reference checked against what was sent. Raise `UnusableAnswerError`."""
    answer = _parse(ExtractionAnswer, text)
    topics = {topic.name.casefold(): TopicDraft(topic.name, topic.description) for topic in answer.topics}
    names = {key: topic.name for key, topic in topics.items()}
    names |= {topic.name.casefold(): topic.name for topic in known.topics}
    ids = {message.message_id for message in messages}
    atoms = [_atom(place, atom, ids, names) for place, atom in enumerate(answer.atoms)]
    known_ids = {atom.atom_id for atom in known.atoms}
    links = [_link(place, link, len(atoms), known_ids) for place, link in enumerate(answer.links)]
    old = {topic.name.casefold() for topic in known.topics}
    new = [draft for key, draft in topics.items() if key not in old]
    return Extraction(topics=new, atoms=atoms, links=links)


def _atom(place: int, answer: AtomAnswer, ids: set[int], topics: dict[str, str]) -> AtomDraft:
    if unknown := sorted(set(answer.message_ids) - ids):
        raise UnusableAnswerError(f"atoms.{place}.message_ids: there are no messages with the ids {unknown[:20]}")
    if not answer.message_ids:
        raise UnusableAnswerError(f"atoms.{place}.message_ids: name at least one message")
    if answer.topic is not None and answer.topic.casefold() not in topics:
        raise UnusableAnswerError(f"atoms.{place}.topic: {answer.topic!r} is neither in topics nor a known topic")
    return AtomDraft(
        type=answer.type,
        title=answer.title,
        content=answer.content,
        confidence=answer.confidence,
        message_ids=tuple(dict.fromkeys(answer.message_ids)),
        topic=topics[answer.topic.casefold()] if answer.topic is not None else None,
    )


def _link(place: int, answer: LinkAnswer, atoms: int, known: set[int]) -> LinkDraft:
    if not 0 <= answer.source < atoms:
        raise UnusableAnswerError(f"links.{place}.source: there is no atom at {answer.source}")
    if (answer.target is None) == (answer.target_atom_id is None):
        raise UnusableAnswerError(f"links.{place}: give exactly one of target and target_atom_id")
    if answer.target is not None and (not 0 <= answer.target < atoms or answer.target == answer.source):
        raise UnusableAnswerError(f"links.{place}.target: {answer.target} is no other atom of this answer")
    if answer.target_atom_id is not None and answer.target_atom_id not in known:
        raise UnusableAnswerError(f"links.{place}.target_atom_id: {answer.target_atom_id} is no known atom")
    return LinkDraft(answer.source, answer.type, answer.confidence, answer.target, answer.target_atom_id)


def _parse(kind: type[Whole], text: str) -> Whole:
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as problem:
        errors = problem.errors(include_url=False, include_input=False, include_context=False)[:5]
        places = (f"{'.'.join(map(str, error['loc'])) or 'the answer'}: {error['msg']}" for error in errors)
        raise UnusableAnswerError("; ".join(places)) from None

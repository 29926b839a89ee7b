"""Statements grouped under named topics: first the names, which are phrases that statements share, then the members."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evervec.domain.extraction.knowledge import DatasetKnowledge, KnownTopic, TopicDraft
from evervec.domain.protocols import Vectors
from evervec.extractors.local.cues import Lexicon
from evervec.extractors.local.phrases import Phrase, PhraseKey, display, key_of, phrases

ATOMS_A_TOPIC = 6
"""New topics are allowed at the rate of one per so many statements that no known topic takes."""

_LEAST_STATEMENTS = (3, 2, 2)  # by the number of words in the name: a single word is easily said by chance
_LEAST_MESSAGES = 2
_LEAST_FOR_ONE = 3  # what a single new statement needs beside it to open a topic with older ones
_PARTNERS = 7  # a word that stands beside so many others is the chat's own subject, not a topic in it
_TOO_COMMON = 0.15  # a single word in more statements than this tells nothing apart
_CLOSE = 0.50  # cosine to a topic's centre from which a statement joins without sharing its words


@dataclass(frozen=True)
class TopicMember:
    """A statement to be grouped: its text, its message and that one's title, and the messages that it answers."""

    text: str
    title: str
    message_id: int
    lexicon: Lexicon
    answers: tuple[int, ...] = ()


@dataclass
class _Candidate:
    forms: Counter[str] = field(default_factory=Counter)
    members: set[int] = field(default_factory=set)
    titled: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Grouping:
    """The name of each member's topic (None: it has none yet), and the topics that are new."""

    names: Sequence[str | None]
    new: Sequence[TopicDraft]


def group(
    members: Sequence[TopicMember], vectors: Vectors, known: DatasetKnowledge, known_vectors: Vectors
) -> Grouping:
    """Give members a topic: a known one by its words, else a new one, else their thread's, else the nearest, else none.

    Known atoms without a topic help to see that a phrase is shared, and are not grouped themselves.
    `vectors` `(len(members), dim)` and `known_vectors` `(len(known.topics), dim)` are normalised.
    """
    if not members:
        return Grouping((), ())
    lexicon = members[0].lexicon
    without_topic = [atom for atom in known.atoms if atom.topic is None]
    candidates_and_known = [
        *members,
        *(TopicMember(atom.content, "", min(atom.message_ids, default=0), lexicon) for atom in without_topic),
    ]
    said = [_keys(member) for member in candidates_and_known]
    names = [_by_words(keys, member, known.topics) for keys, member in zip(said, candidates_and_known, strict=True)]
    new = _new_topics(
        candidates_and_known, len(members), said, names, {key_of(topic.name, lexicon) for topic in known.topics}
    )
    names = names[: len(members)]
    _join_thread(names, members, known)
    _join_nearest(names, vectors, known.topics, known_vectors)
    return Grouping(names, new)


def _keys(member: TopicMember) -> Mapping[PhraseKey, tuple[Phrase, bool]]:
    """Return every phrase of a member, and whether its title has it: what a title names is what the message is about.

    Where there is a title, a single word counts only in it: a sentence has many words that are not its subject.
    """
    said = phrases(member.text, member.lexicon)
    found = {phrase.key: (phrase, False) for phrase in said if len(phrase.key) > 1 or not member.title}
    found.update({phrase.key: (phrase, True) for phrase in phrases(member.title, member.lexicon)})
    return found


def _by_words(said: Collection[PhraseKey], member: TopicMember, known: Sequence[KnownTopic]) -> str | None:
    """Return the known topic whose name is in the member's text, the longest name first."""
    keys = [(key_of(topic.name, member.lexicon), topic) for topic in known]
    fits = [(len(key), -topic.topic_id, topic.name) for key, topic in keys if key in said]
    return max(fits)[2] if fits else None


def _new_topics(
    members: Sequence[TopicMember],
    fresh: int,
    said: Sequence[Mapping[PhraseKey, tuple[Phrase, bool]]],
    names: list[str | None],
    taken: set[PhraseKey],
) -> list[TopicDraft]:
    """Return new topics by greedy cover: again and again the phrase that best names the rest. Fill in `names`."""
    common = Counter(key for keys in said for key in keys)
    partners = Counter(stem for key in common if len(key) == 2 for stem in key)
    general = {(stem,) for stem, count in partners.items() if count >= _PARTNERS}
    broad = {(member.lexicon.stem(word),) for member in members[:1] for word in member.lexicon.broad_words}
    taken = taken | general | broad
    budget = math.ceil(names.count(None) / ATOMS_A_TOPIC)
    drafts: list[TopicDraft] = []
    while len(drafts) < budget:
        free = [at for at, name in enumerate(names) if name is None]
        best = _best(_candidates(said, free), members, fresh, common, taken)
        if best is None:
            break
        key, candidate = best
        name = display(min(candidate.forms, key=lambda form: (-candidate.forms[form], len(form), form)))
        taken.add(key)
        for at in candidate.members:
            names[at] = name
        drafts.append(TopicDraft(name, _description(key, said, candidate.members)))
    return drafts


def _candidates(
    said: Sequence[Mapping[PhraseKey, tuple[Phrase, bool]]], free: Sequence[int]
) -> Mapping[PhraseKey, _Candidate]:
    found: dict[PhraseKey, _Candidate] = defaultdict(_Candidate)
    for at in free:
        for key, (phrase, titled) in said[at].items():
            candidate = found[key]
            candidate.forms[phrase.text if phrase.text.isupper() else _lower_first(phrase.text)] += 1
            candidate.members.add(at)
            if titled:
                candidate.titled.add(at)
    return found


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:].islower() else text


def _best(
    candidates: Mapping[PhraseKey, _Candidate],
    members: Sequence[TopicMember],
    fresh: int,
    common: Counter[PhraseKey],
    taken: set[PhraseKey],
) -> tuple[PhraseKey, _Candidate] | None:
    scored = [
        (_quality(key, candidate, len(members), common), key)
        for key, candidate in candidates.items()
        if key not in taken and min(candidate.members) < fresh and _is_shared(key, candidate, members, fresh)
    ]
    quality, key = max(scored, key=lambda pair: (pair[0], pair[1]), default=(0.0, ()))
    return (key, candidates[key]) if quality > 0 else None


def _is_shared(key: PhraseKey, candidate: _Candidate, members: Sequence[TopicMember], fresh: int) -> bool:
    messages = {members[at].message_id for at in candidate.members}
    least = _LEAST_STATEMENTS[len(key) - 1] if sum(at < fresh for at in candidate.members) > 1 else _LEAST_FOR_ONE
    return len(candidate.members) >= least and len(messages) >= _LEAST_MESSAGES


def _quality(key: PhraseKey, candidate: _Candidate, total: int, common: Counter[PhraseKey]) -> float:
    """Return how well a phrase names its members: many of them, in titles, two words rather than one, and not everywhere."""
    if len(key) == 1 and common[key] > max(5, _TOO_COMMON * total):
        return 0.0
    rarest = max(math.log((total + 1) / max(common[(stem,)], common[key])) for stem in key)
    length = (0.7, 2.2, 1.8)[len(key) - 1]
    return length * math.sqrt(len(candidate.members)) * (0.4 + len(candidate.titled) / len(candidate.members)) * rarest


def _description(
    key: PhraseKey, said: Sequence[Mapping[PhraseKey, tuple[Phrase, bool]]], members: Collection[int]
) -> str:
    """Return other phrases of the members, so that a reader and an embedding see more than the name."""
    beside: Counter[str] = Counter()
    for at in members:
        beside.update({phrase.text.lower() for other, (phrase, _) in said[at].items() if not set(other) & set(key)})
    often = [text for text, _ in sorted(beside.items(), key=lambda item: (-item[1], -len(item[0]), item[0]))[:4]]
    return ", ".join(often)


def _join_thread(names: list[str | None], members: Sequence[TopicMember], known: DatasetKnowledge) -> None:
    """Give answers the topic of what they answer, whatever their own words are."""
    spoken = {message_id: atom.topic for atom in known.atoms if atom.topic for message_id in atom.message_ids}
    for at, member in enumerate(members):
        above = [spoken[message_id] for message_id in reversed(member.answers) if message_id in spoken]
        name = names[at] or next(iter(above), None)
        if name:
            names[at] = name
            spoken.setdefault(member.message_id, name)


def _join_nearest(
    names: list[str | None], vectors: Vectors, known: Sequence[KnownTopic], known_vectors: Vectors
) -> None:
    """Give statements without a topic the nearest one, if it is near enough."""
    centres: dict[str, Vectors] = {topic.name: known_vectors[at] for at, topic in enumerate(known)}
    for new in {name for name in names if name is not None}:
        mean = vectors[[at for at, other in enumerate(names) if other == new]].mean(axis=0)
        centres[new] = mean / (np.linalg.norm(mean) or 1.0)
    if not centres:
        return
    order = sorted(centres)
    near = vectors @ np.stack([centres[name] for name in order]).T
    for at, name in enumerate(names):
        if name is None and near[at].max() >= _CLOSE:
            names[at] = order[int(near[at].argmax())]

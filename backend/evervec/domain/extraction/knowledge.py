"""Knowledge extracted from messages: scores, topics, atoms and the links between atoms."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Signal(StrEnum):
    """How much information a message has."""

    SIGNAL = "signal"
    WEAK_SIGNAL = "weak_signal"
    NOISE = "noise"


class AtomType(StrEnum):
    """The kind of statement that an atom makes."""

    PROBLEM = "problem"
    SOLUTION = "solution"
    DECISION = "decision"
    QUESTION = "question"
    INSIGHT = "insight"
    IDEA = "idea"
    BLOCKER = "blocker"
    RISK = "risk"
    REQUIREMENT = "requirement"


class LinkType(StrEnum):
    """The relation between two atoms: `source` <type> `target`."""

    SOLVES = "solves"
    CONTINUES = "continues"
    CONTRADICTS = "contradicts"
    SUPPORTS = "supports"
    REFINES = "refines"
    RELATES_TO = "relates_to"
    DEPENDS_ON = "depends_on"


@dataclass(frozen=True)
class MessageText:
    """A message as an extractor sees it. `reply_to` is the `message_id` that it answers, if that is known."""

    message_id: int
    text: str
    author: str
    sent_at: datetime
    reply_to: int | None = None


@dataclass(frozen=True)
class Score:
    """A score in [0, 1]; `factors` give the share of each reason (they add up to `value` before clipping)."""

    message_id: int
    value: float
    signal: Signal
    factors: Mapping[str, float]


@dataclass(frozen=True)
class ChatTokens:
    """The tokens that a chat model was sent and that it answered with, as its vendor counted them; none for rules."""

    sent: int = 0
    answered: int = 0

    def __add__(self, other: "ChatTokens") -> "ChatTokens":
        return ChatTokens(self.sent + other.sent, self.answered + other.answered)


@dataclass(frozen=True)
class Scores:
    """One score per message, in the order of the messages; also a sequence of them."""

    scores: Sequence[Score] = ()
    tokens: ChatTokens = ChatTokens()

    def __iter__(self) -> Iterator[Score]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, place: int) -> Score:
        return self.scores[place]


@dataclass(frozen=True)
class TopicDraft:
    """A named topic; `name` is its identity inside a dataset (compared without case)."""

    name: str
    description: str


@dataclass(frozen=True)
class AtomDraft:
    """One typed statement. `topic` is the name of a TopicDraft of the same extraction or of a known topic."""

    type: AtomType
    title: str
    content: str
    confidence: float
    message_ids: tuple[int, ...]
    topic: str | None = None


@dataclass(frozen=True)
class LinkDraft:
    """A link from the draft at index `source` to the draft at index `target`, or to the known atom `target_atom_id`."""

    source: int
    type: LinkType
    confidence: float
    target: int | None = None
    target_atom_id: int | None = None


@dataclass(frozen=True)
class Extraction:
    """The result of one call of an extractor."""

    topics: Sequence[TopicDraft] = ()
    atoms: Sequence[AtomDraft] = ()
    links: Sequence[LinkDraft] = ()
    tokens: ChatTokens = ChatTokens()


@dataclass(frozen=True)
class KnownTopic:
    """A topic that the dataset already has."""

    topic_id: int
    name: str
    description: str


@dataclass(frozen=True)
class KnownAtom:
    """An atom that the dataset already has, with the messages it was drawn from."""

    atom_id: int
    type: AtomType
    title: str
    content: str
    topic: str | None = None
    message_ids: tuple[int, ...] = field(default=())


@dataclass(frozen=True)
class DatasetKnowledge:
    """What a dataset knows before a batch is extracted: all its topics, and the atoms nearest in time and thread."""

    topics: Sequence[KnownTopic] = ()
    atoms: Sequence[KnownAtom] = ()

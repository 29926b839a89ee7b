"""Compares an extraction with the atoms that exist: which stay, change, are created or deleted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial

from evervec.domain.extraction.knowledge import AtomDraft, KnownAtom

SAME_STATEMENT = 0.55
"""Two texts of one message whose similarity is at least this are versions of one statement."""


@dataclass(frozen=True)
class AtomPlan:
    """Every draft is exactly one of kept, changed or created (by its index); `retired` and `detached` are old atoms.

    An atom is changed by one draft at most, and never kept by another; equal drafts may keep the same atom.

    `detached` are `(atom id, message id)`: the atom has other sources and stays, only this one no longer states it.
    """

    drafts: Sequence[AtomDraft]
    kept: dict[int, int]
    changed: dict[int, tuple[int, AtomDraft]]
    created: dict[int, AtomDraft]
    retired: list[int]
    detached: list[tuple[int, int]]


def reconcile(drafts: Sequence[AtomDraft], known: Sequence[KnownAtom], message_ids: Sequence[int]) -> AtomPlan:
    """Match drafts with known atoms: equal statements first, then the most similar of the same message.

    `message_ids` are the messages that were extracted; an atom drawn from them that no draft states any more is retired.
    """
    extracted = set(message_ids)
    kept = _equal(drafts, known)
    free = {atom.atom_id: atom for atom in known if atom.atom_id not in kept.values()}
    changed: dict[int, tuple[int, AtomDraft]] = {}
    for alike in (_same_words, partial(_most_alike, extracted=extracted)):
        for index, draft in enumerate(drafts):
            found = None if index in kept or index in changed else alike(draft, free)
            if found is not None:
                changed[index] = (found, draft)
                del free[found]
    created = {i: draft for i, draft in enumerate(drafts) if i not in kept and i not in changed}
    retired = [a.atom_id for a in free.values() if a.message_ids and set(a.message_ids) <= extracted]
    stated = kept | {index: atom_id for index, (atom_id, _) in changed.items()}
    detached = _detached(drafts, [a for a in known if a.atom_id not in retired], stated, extracted)
    return AtomPlan(drafts, kept, changed, created, retired, detached)


def _equal(drafts: Sequence[AtomDraft], known: Sequence[KnownAtom]) -> dict[int, int]:
    """Match drafts with equal atoms: of the same messages first, then in turn; drafts may share the last atom."""
    atoms: dict[tuple[str, str], list[KnownAtom]] = {}
    for atom in known:
        atoms.setdefault((atom.type, atom.content), []).append(atom)
    kept: dict[int, int] = {}
    for of_same_messages in (True, False):
        for index, draft in enumerate(drafts):
            alike = atoms.get((draft.type, draft.content), [])
            free = [a for a in alike if a.atom_id not in kept.values()]
            if of_same_messages:
                free = [a for a in free if set(a.message_ids) == set(draft.message_ids)]
            elif not free:
                free = alike[-1:]
            if index not in kept and free:
                kept[index] = free[0].atom_id
    return kept


def _detached(
    drafts: Sequence[AtomDraft], known: Sequence[KnownAtom], stated: dict[int, int], extracted: set[int]
) -> list[tuple[int, int]]:
    """Return which atoms that stay are no longer stated by which of their messages."""
    says: dict[int, set[int]] = {}
    for index, atom_id in stated.items():
        # a draft without messages may come from any of them
        says.setdefault(atom_id, set()).update(drafts[index].message_ids or extracted)
    return [
        (a.atom_id, m) for a in known for m in a.message_ids if m in extracted and m not in says.get(a.atom_id, set())
    ]


def _same_words(draft: AtomDraft, candidates: Mapping[int, KnownAtom]) -> int | None:
    """Return an atom with the same words: only its type, letter case or spaces changed."""
    words = _folded(draft.content)
    return next((atom_id for atom_id, atom in candidates.items() if _folded(atom.content) == words), None)


def _most_alike(draft: AtomDraft, candidates: Mapping[int, KnownAtom], extracted: set[int]) -> int | None:
    best, best_ratio = None, SAME_STATEMENT
    for atom in candidates.values():
        sources = set(atom.message_ids)
        # an atom may be changed only by a draft that has all the atom's messages
        if sources & extracted and sources <= set(draft.message_ids):
            ratio = SequenceMatcher(None, atom.content, draft.content, autojunk=False).ratio()
            if ratio > best_ratio:
                best, best_ratio = atom.atom_id, ratio
    return best


def _folded(content: str) -> str:
    return " ".join(content.casefold().split())

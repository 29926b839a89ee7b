"""What a new extraction means for the atoms that are there: which stay, change, come and go."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from evervec.domain.knowledge import AtomDraft, KnownAtom

SAME_STATEMENT = 0.55
"""Two texts of one message that share this much are versions of one statement, not two statements."""


@dataclass(frozen=True)
class Plan:
    """Every draft is exactly one of kept, changed or created (by its index); `retired` and `detached` are old atoms.

    `detached` are `(atom id, message id)`: the atom has other sources and stays, only this one no longer states it.
    """

    drafts: Sequence[AtomDraft]
    kept: dict[int, int]
    changed: dict[int, tuple[int, AtomDraft]]
    created: dict[int, AtomDraft]
    retired: list[int]
    detached: list[tuple[int, int]]


def reconcile(drafts: Sequence[AtomDraft], known: Sequence[KnownAtom], message_ids: Sequence[int]) -> Plan:
    """Match drafts with known atoms: equal statements first, then the most alike of the same message.

    `message_ids` are the messages that were extracted; an atom drawn from them that no draft states any more goes.
    """
    extracted = set(message_ids)
    kept: dict[int, int] = {}
    changed: dict[int, tuple[int, AtomDraft]] = {}
    free = {atom.atom_id: atom for atom in known}
    by_content = {_folded(atom.content): atom for atom in reversed(known)}
    for index, draft in enumerate(drafts):
        atom = by_content.get(_folded(draft.content))
        if atom is not None:
            free.pop(atom.atom_id, None)
            if (atom.type, atom.content) == (draft.type, draft.content):
                kept[index] = atom.atom_id
            elif atom.atom_id not in {a for a, _ in changed.values()}:
                changed[index] = (atom.atom_id, draft)
            else:
                kept[index] = atom.atom_id
    origin = {atom_id: atom for atom_id, atom in free.items() if extracted & set(atom.message_ids)}
    for index, draft in enumerate(drafts):
        if index not in kept and index not in changed:
            alike = _most_alike(draft, origin)
            if alike is not None:
                changed[index] = (alike, draft)
                del origin[alike]
    created = {i: draft for i, draft in enumerate(drafts) if i not in kept and i not in changed}
    retired = [a.atom_id for a in origin.values() if set(a.message_ids) <= extracted]
    detached = [
        (a.atom_id, m) for a in origin.values() if a.atom_id not in retired for m in a.message_ids if m in extracted
    ]
    return Plan(drafts, kept, changed, created, retired, detached)


def _most_alike(draft: AtomDraft, candidates: dict[int, KnownAtom]) -> int | None:
    best, best_ratio = None, SAME_STATEMENT
    for atom in candidates.values():
        # only an atom that this draft's messages alone stated may be rewritten by them
        if set(atom.message_ids) <= set(draft.message_ids):
            ratio = SequenceMatcher(None, atom.content, draft.content, autojunk=False).ratio()
            if ratio > best_ratio:
                best, best_ratio = atom.atom_id, ratio
    return best


def _folded(content: str) -> str:
    return " ".join(content.casefold().split())

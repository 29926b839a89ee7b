"""What a new extraction means for the atoms that are there, for any drafts and any atoms."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from evervec.domain.extraction.knowledge import AtomDraft, AtomType, KnownAtom
from evervec.domain.extraction.reconcile import AtomPlan, reconcile

CONTENTS = st.sampled_from(["jobs wait", "Jobs  wait", "jobs wait long", "leases end", "the worker hangs", "?"])
TYPES = st.sampled_from([AtomType.PROBLEM, AtomType.IDEA])
SOURCES = st.lists(st.integers(1, 4), max_size=3, unique=True).map(lambda ids: tuple(sorted(ids)))
DRAFTS = st.lists(
    st.builds(AtomDraft, TYPES, st.just("title"), CONTENTS, st.just(0.5), SOURCES.filter(bool)), max_size=6
)
KNOWN = st.lists(
    st.builds(KnownAtom, st.just(0), TYPES, st.just("title"), CONTENTS, st.none(), SOURCES), max_size=6
).map(lambda atoms: [replace(atom, atom_id=100 + place) for place, atom in enumerate(atoms)])
EXTRACTED = st.sets(st.integers(1, 4))


def draft(content: str, *sources: int, type_: AtomType = AtomType.IDEA) -> AtomDraft:
    return AtomDraft(type_, "title", content, 0.5, sources)


def atom(atom_id: int, content: str, *sources: int, type_: AtomType = AtomType.IDEA) -> KnownAtom:
    return KnownAtom(atom_id, type_, "title", content, None, sources)


def carried_out(plan: AtomPlan, known: Sequence[KnownAtom]) -> list[KnownAtom]:
    """Return what the store holds after a plan."""
    atoms = {one.atom_id: one for one in known if one.atom_id not in plan.retired}
    for atom_id, message_id in plan.detached:
        sources = tuple(m for m in atoms[atom_id].message_ids if m != message_id)
        atoms[atom_id] = replace(atoms[atom_id], message_ids=sources)
    says = plan.kept | {index: atom_id for index, (atom_id, _) in plan.changed.items()}
    for place, (index, made) in enumerate(plan.created.items()):
        says[index] = 1000 + place
        atoms[1000 + place] = KnownAtom(1000 + place, made.type, made.title, made.content)
    for atom_id, made in plan.changed.values():
        atoms[atom_id] = replace(atoms[atom_id], type=made.type, content=made.content)
    for index, atom_id in says.items():
        sources = tuple(sorted({*atoms[atom_id].message_ids, *plan.drafts[index].message_ids}))
        atoms[atom_id] = replace(atoms[atom_id], message_ids=sources)
    return list(atoms.values())


@given(DRAFTS, KNOWN, EXTRACTED)
def test_every_draft_is_kept_changed_or_created(
    drafts: list[AtomDraft], known: list[KnownAtom], extracted: set[int]
) -> None:
    plan = reconcile(drafts, known, sorted(extracted))
    assert sorted([*plan.kept, *plan.changed, *plan.created]) == list(range(len(drafts)))


@given(DRAFTS, KNOWN, EXTRACTED)
def test_no_atom_is_used_for_two_statements(
    drafts: list[AtomDraft], known: list[KnownAtom], extracted: set[int]
) -> None:
    plan = reconcile(drafts, known, sorted(extracted))
    changed = [atom_id for atom_id, _ in plan.changed.values()]
    used = {*plan.kept.values(), *changed}
    assert len(changed) == len(set(changed))
    assert not set(changed) & set(plan.kept.values())
    assert not used & set(plan.retired)
    said = {one.atom_id: (one.type, one.content) for one in known}
    for index, atom_id in plan.kept.items():
        assert said[atom_id] == (drafts[index].type, drafts[index].content)


@given(DRAFTS, KNOWN, EXTRACTED)
def test_only_what_extracted_messages_said_is_taken_back(
    drafts: list[AtomDraft], known: list[KnownAtom], extracted: set[int]
) -> None:
    plan = reconcile(drafts, known, sorted(extracted))
    sources = {one.atom_id: set(one.message_ids) for one in known}
    assert all(sources[atom_id] and sources[atom_id] <= extracted for atom_id in plan.retired)
    assert all(message_id in extracted & sources[atom_id] for atom_id, message_id in plan.detached)
    assert not {atom_id for atom_id, _ in plan.detached} & set(plan.retired)


@given(DRAFTS, KNOWN)
def test_after_a_plan_every_source_of_an_extracted_message_is_one_that_states_it(
    drafts: list[AtomDraft], known: list[KnownAtom]
) -> None:
    extracted = [1, 2, 3, 4]
    stated = {(one.content, message_id) for one in drafts for message_id in one.message_ids}
    after = carried_out(reconcile(drafts, known, extracted), known)
    assert {(one.content, message_id) for one in after for message_id in one.message_ids} == stated


@given(DRAFTS, KNOWN)
def test_the_same_extraction_again_changes_nothing(drafts: list[AtomDraft], known: list[KnownAtom]) -> None:
    extracted = [1, 2, 3, 4]
    after = carried_out(reconcile(drafts, known, extracted), known)
    again = reconcile(drafts, after, extracted)
    assert (again.changed, again.created, again.retired, again.detached) == ({}, {}, [], [])


def test_a_statement_that_another_message_makes_too_is_kept() -> None:
    plan = reconcile([draft("jobs wait", 2)], [atom(100, "jobs wait", 1)], [2])
    assert (plan.kept, plan.created, plan.retired, plan.detached) == ({0: 100}, {}, [], [])


def test_a_statement_of_another_type_is_the_same_one_judged_anew() -> None:
    given_draft = draft("jobs wait", 1, type_=AtomType.PROBLEM)
    plan = reconcile([given_draft], [atom(100, "jobs wait", 1)], [1])
    assert plan.changed == {0: (100, given_draft)}


def test_a_statement_reworded_by_its_message_is_a_new_version_not_a_new_atom() -> None:
    given_draft = draft("the worker hangs after every restart of NATS", 1)
    known = [atom(100, "the worker hangs after a restart", 1), atom(101, "leases end", 1)]
    plan = reconcile([given_draft], known, [1])
    assert (plan.changed, plan.retired) == ({0: (100, given_draft)}, [101])


def test_what_another_message_said_too_is_never_reworded_by_one() -> None:
    given_draft = draft("the worker hangs after every restart of NATS", 1)
    plan = reconcile([given_draft], [atom(100, "the worker hangs after a restart", 1, 2)], [1])
    assert (plan.created, plan.retired, plan.detached) == ({0: given_draft}, [], [(100, 1)])

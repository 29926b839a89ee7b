"""A thousand random changes to a mirror's two files, and each of them is found."""

import random
from pathlib import Path

import pytest

from evervec.mirror.disk.paths import MirrorPaths
from tests.mirror.stored import DATASET, IDENTITY, OTHER, PROJECT, Stored, segment

PAGE = 4096


def flip(data: bytes, chance: random.Random) -> bytes:
    """Flip one bit."""
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncate(data: bytes, chance: random.Random) -> bytes:
    """Truncate it somewhere before its end."""
    return data[: chance.randrange(len(data))]


def zero(data: bytes, chance: random.Random) -> bytes:
    """Zero a page, as if it was never written."""
    start = chance.randrange(0, len(data), PAGE)
    return data[:start] + bytes(min(PAGE, len(data) - start)) + data[start + PAGE :]


def append(data: bytes, chance: random.Random) -> bytes:
    """Append something after its end."""
    return data + chance.choice([b"\n", b" ", b"\0", bytes(64), chance.randbytes(chance.randrange(1, PAGE))])


CHANGES = (flip, truncate, zero, append)


@pytest.mark.parametrize("suffix", ["bin", "json"])
def test_a_thousand_mutations_are_found(tmp_path: Path, suffix: str) -> None:
    stored, chance = Stored(tmp_path), random.Random(168)
    for dataset, n in ((DATASET, 300), (OTHER, 300)):
        stored.folder.save(PROJECT, dataset, segment(n))
    place, other = stored.place, MirrorPaths(tmp_path, PROJECT, OTHER)
    good = {path: path.read_bytes() for path in (place.bin, place.manifest)}
    spoilt = place.bin.with_suffix(f".{suffix}")
    folder, missed = stored.folder, []
    for turn in range(500):
        for path, data in good.items():
            path.write_bytes(data)
        change = (*CHANGES, None)[turn % 5]
        changed = change(good[spoilt], chance) if change else other.bin.with_suffix(f".{suffix}").read_bytes()
        assert changed != good[spoilt]
        spoilt.write_bytes(changed)
        loaded = folder.load(PROJECT, DATASET, IDENTITY)
        if (loaded.state, loaded.segment) != ("set aside", None):
            missed.append((turn, change, loaded.state))
    assert missed == []
    for path, data in good.items():
        path.write_bytes(data)
    assert folder.load(PROJECT, DATASET, IDENTITY).state == "ready"  # it was the change that was found, each time

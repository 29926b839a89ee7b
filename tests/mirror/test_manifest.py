"""The manifest comes back as it was written, or not at all."""

from dataclasses import replace
from math import nan

import orjson
import pytest

from evervec.domain.feed import Watermark
from evervec.errors import MirrorFileError
from evervec.mirror.disk.manifest import FileLayout, Generation, Manifest, decode, encode
from evervec.mirror.segment import Tuning
from tests.mirror.stored import DATASET, IDENTITY, PROJECT

CURRENT = Generation(
    number=8,
    n=3,
    container=FileLayout("ab" * 16, "cd" * 16, 1000, 600, 640, 704, 768),
    factory="IVF64,RaBitQfs,Refine(SQfp16)",
    tuning=Tuning(0.98, 0.9875, 200, nprobe=24, k_factor=4.5),
    identity=IDENTITY,
    watermark=Watermark(2**63, 2**64 - 1, (2**63 + 1, 2**63 + 5)),
    faiss="1.15.1",
    written_at="2026-11-21T10:00:00Z",
)
MANIFEST = Manifest(PROJECT, DATASET, CURRENT, replace(CURRENT, number=7, written_at=None))


@pytest.mark.parametrize(
    "manifest",
    [MANIFEST, Manifest(PROJECT, DATASET, CURRENT), Manifest(PROJECT, DATASET, replace(CURRENT, reread=(5, 2**62)))],
)
def test_a_manifest_comes_back_the_same(manifest: Manifest) -> None:
    assert decode(encode(manifest)) == manifest


def test_what_an_older_version_does_not_know_is_written_only_where_it_is_needed() -> None:
    assert b"reread" not in encode(MANIFEST)


def test_every_flipped_bit_is_found() -> None:
    data = encode(MANIFEST)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(MirrorFileError):
            decode(bytes(flipped))


def test_what_json_does_not_care_for_is_found_too() -> None:
    data = encode(MANIFEST)
    same = orjson.dumps(orjson.loads(data))
    for other in (same, data + b"\n", b" " + data, data.replace(b'"n": 3', b'"n": 4, "n": 3', 1)):
        assert orjson.loads(other)
        with pytest.raises(MirrorFileError, match="checksum"):
            decode(other)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "unknown format None"),
        (b'{"format": 2, "wonders": true}', "newer format 2"),
        (b'{"format": "1"}', "unknown format '1'"),
        (b'{"format": 1}', "checksum"),
    ],
)
def test_another_file_is_refused_in_words(data: bytes, reason: str) -> None:
    with pytest.raises(MirrorFileError, match=reason):
        decode(data)


def test_what_could_not_be_read_back_is_not_written() -> None:
    with pytest.raises(ValueError, match="can not be read back"):
        encode(Manifest(PROJECT, DATASET, replace(CURRENT, tuning=Tuning(0.98, nan, 200))))

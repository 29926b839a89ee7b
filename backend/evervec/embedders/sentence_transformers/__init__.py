"""Embedding by sentence-transformers, with a model of the hub or one of a folder."""

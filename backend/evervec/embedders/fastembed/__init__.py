"""Embedding by fastembed, with a model that it knows by name or one of a folder."""

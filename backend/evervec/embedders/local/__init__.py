"""Embedding in this process, with a model that comes in a wheel."""

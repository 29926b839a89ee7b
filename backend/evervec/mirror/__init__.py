"""FAISS in memory and on disk: one index a dataset, a function of what the feed said. Knows no SQL."""

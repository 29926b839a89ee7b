"""The table `embeddings`: rows claimed with a lease, vectors written and searched, the change feed, vectors on the wire."""

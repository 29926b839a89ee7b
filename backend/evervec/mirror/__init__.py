"""The FAISS mirrors, in memory and on disk: one index a dataset, built from the change feed. No SQL here.

Read `index` (one dataset's index: readers take a snapshot, one writer publishes the next one), then `snapshot`,
`segment` (immutable, built by `build` and `tuning`) and `delta` (what changed after it), then `disk`.
"""

"""Index runs: requested, queued, run one at a time for each dataset, continued after a crash."""

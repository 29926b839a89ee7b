"""The connection to PostgreSQL, on which everything in the store runs: pool, transactions, and what is checked at the start.

Read `session`, then `connections`. Addresses are read in `store/address`, tables are in `store/schema`.
"""

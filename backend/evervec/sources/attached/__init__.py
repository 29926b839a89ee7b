"""Attached tables: what an operator says of one, and how its rows become documents. `store/attached` reads the rows.

Read `description`, then `records`.
"""

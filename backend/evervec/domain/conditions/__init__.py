"""Conditions of a search: one tree, the same in Python, as JSON and as text; knows no fields and no SQL."""

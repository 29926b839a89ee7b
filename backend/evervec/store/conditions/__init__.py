"""Conditions in SQL: the fields that they may name, and their tree as expressions with parameters."""

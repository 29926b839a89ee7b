"""Rows that wait are claimed, embedded and written; the providers that do it; what was given up on."""

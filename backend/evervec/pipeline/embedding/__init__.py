"""Rows that wait are claimed, embedded and written; providers are added, tested and switched; failed rows are retried."""

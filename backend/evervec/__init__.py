"""Evervec keeps the text in PostgreSQL embedded and searchable."""

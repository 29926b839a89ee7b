"""Upkeep: the sweep, the janitor, the backfill, and the check of mirrors."""

"""Work that nobody asks for: the sweep, the janitor, the backfill, the check of mirrors."""

"""Batch jobs in the database: the jobs and their items, rows that wait for one, media to be described."""

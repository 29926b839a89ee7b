"""Batch jobs in the database: the jobs and their rows, rows that wait for one, media to be described."""

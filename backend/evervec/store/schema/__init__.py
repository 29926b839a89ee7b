"""The tables, their triggers and migrations: what the database looks like, and how it gets there."""

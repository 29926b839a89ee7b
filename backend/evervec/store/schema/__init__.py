"""The schema: models of the tables, triggers, and the code that migrates and repairs a database."""

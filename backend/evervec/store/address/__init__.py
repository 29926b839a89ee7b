"""Turns the address of a PostgreSQL server, as libpq understands it, into a connection. Nothing else reads addresses."""

"""Rings between processes through PostgreSQL alone: NOTIFY after a commit, LISTEN on a connection of its own."""

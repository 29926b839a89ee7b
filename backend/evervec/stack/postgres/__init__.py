"""The embedded PostgreSQL: its cluster on disk, its socket, its process."""

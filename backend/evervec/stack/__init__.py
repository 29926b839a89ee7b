"""Embedded PostgreSQL and NATS for one machine."""

"""The embedded stack: PostgreSQL with pgvector and NATS on one machine, started, shared and stopped by its users."""

from evervec.stack.stack import Stack, StackUrls, open_stack

__all__ = ["Stack", "StackUrls", "open_stack"]

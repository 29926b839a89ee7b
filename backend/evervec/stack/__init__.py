"""The embedded stack: PostgreSQL with pgvector and NATS on one machine, started, shared and stopped by its users.

Read `stack` (the whole), then `embedded_server` (what each server can do), `postgres`, `nats` and `process`.
"""

from evervec.stack.stack import Stack, StackUrls, open_stack

__all__ = ["Stack", "StackUrls", "open_stack"]

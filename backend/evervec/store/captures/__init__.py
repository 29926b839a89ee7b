"""Ways to notice changes beside triggers of our own database: an outbox in another database.

Read `other_database`, then `outbox`.
"""

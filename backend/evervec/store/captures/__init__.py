"""Ways to notice changes beside triggers of our own database: an outbox in another one, polling, and slots.

Read `other_database`, then `outbox`, `polling` and `slots`.
"""

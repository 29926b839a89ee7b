"""Tables of others that are embedded in place: inspected, watched by triggers, read by key.

Read `shape`, then `capture` (triggers), `changes` (what they record) and `rows`.
"""

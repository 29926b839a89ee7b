"""Attached tables: attached and detached, followed by their change records, their existing rows taken in, reported.

A row's document is written by one worker at a time, from what was read after its change record was taken: see `intake`.
"""

"""Files as documents: which files there are, what has changed, and their text.

Read `file_source` (the whole source of a dataset) first, then `listing` with `ignore` and `roots`, `watcher` with
`events`, and `readers` (a module a format).
"""

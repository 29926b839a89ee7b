"""SQL sources: descriptions of tables, and how a record becomes a document. `store/foreign` reads the rows.

Read `description`, then `loading` (from YAML), `template` and `records`.
"""

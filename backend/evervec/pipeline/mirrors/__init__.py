"""The mirrors of one process: opened or built, updated from the change feed, checked against the database, repaired."""

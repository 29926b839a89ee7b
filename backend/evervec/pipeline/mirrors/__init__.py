"""The mirrors of one process: opened or built, kept up with the change feed, compared with the database, repaired."""

"""SQL sources: how tables are described, and how a record becomes a document; the reading itself is `store/foreign`."""

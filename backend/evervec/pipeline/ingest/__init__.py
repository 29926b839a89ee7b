"""Ways for text to come in: chat exports, documents handed over, folders of files, SQL sources."""

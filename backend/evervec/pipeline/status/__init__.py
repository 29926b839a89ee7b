"""What the CLI, the HTTP API and the library show: coverage, mirrors, indexing and its runs."""

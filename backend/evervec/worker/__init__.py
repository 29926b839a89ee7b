"""The worker process and its thin, named tasks."""

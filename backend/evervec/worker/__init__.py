"""The worker process, its schedule and its tasks."""

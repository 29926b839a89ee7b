"""What several commands print alike: index runs, batch jobs, what still waits."""

"""Messages are scored, and knowledge is extracted from those that carry a signal."""

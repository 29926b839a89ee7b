"""Another space is filled beside the one that is searched, then searched instead of it, rolled back, or dropped."""

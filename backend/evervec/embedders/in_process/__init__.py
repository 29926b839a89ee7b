"""What the embedders that run a model in this process share: threads, windows, folders and the hub."""

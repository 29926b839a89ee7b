"""What the embedders that run a model in this process share: threads, windows and folders."""

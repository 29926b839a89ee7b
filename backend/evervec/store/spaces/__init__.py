"""The spaces of datasets: which one is searched, which are built or kept beside it, and how they are removed."""

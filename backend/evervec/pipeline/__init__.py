"""One file per stage, in the order a row travels."""

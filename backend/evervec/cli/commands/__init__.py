"""The commands: each parses its arguments, calls one function of the pipeline and prints."""

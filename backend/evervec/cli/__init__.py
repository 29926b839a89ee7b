"""The command line: parse, call one pipeline function, print the answer."""

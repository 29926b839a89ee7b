"""HTTP: parse, call one pipeline function, answer."""

"""HTTP: parse, call one pipeline function, return its answer."""

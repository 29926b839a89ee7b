"""Who scores messages and extracts knowledge, behind the `Extractor` protocol."""

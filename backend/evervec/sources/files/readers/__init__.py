"""The formats of files: bytes to text, one module a format."""

"""The formats of files: bytes to text, one module a format.

Read `document` first: it picks the reader; `file_bytes` opens files, `decoding` finds their charset.
"""

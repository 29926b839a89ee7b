"""Mirrors as files: each is written completely or not at all, checked against its manifest and locked by one writer.

Read `paths` (file names), `manifest` and `segment_file` (formats), then `folder` (load, save, remove).
"""

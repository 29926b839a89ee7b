"""Embedding with a sentence encoder in this process: of a folder, or of a wheel; nothing is ever downloaded."""

"""Embedding with an Ollama server."""

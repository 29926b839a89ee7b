"""Scoring and extraction by a chat model of an Ollama server."""

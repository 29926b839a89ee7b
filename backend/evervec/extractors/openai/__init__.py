"""Scoring and extraction by a chat model of OpenAI, or of a compatible server."""

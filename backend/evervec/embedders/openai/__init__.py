"""Embedding with the OpenAI API, or a server that speaks like it, at once and by batch jobs."""

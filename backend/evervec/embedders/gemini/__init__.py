"""Embedding with the Gemini API, at once and by batch jobs."""

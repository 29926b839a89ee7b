"""Scoring and extraction by a chat model of the Gemini API."""

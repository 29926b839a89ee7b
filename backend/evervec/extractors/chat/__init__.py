"""Scoring and extraction by a chat model, the same for all vendors: prompts, one schema, checks, one repair."""

"""Scoring and extraction by rules, in this process, for four languages."""

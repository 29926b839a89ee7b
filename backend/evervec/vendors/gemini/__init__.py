"""The Gemini API: its HTTP client and what its refusals mean."""

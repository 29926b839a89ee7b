"""The OpenAI API and compatible servers: the HTTP client and what its refusals mean."""

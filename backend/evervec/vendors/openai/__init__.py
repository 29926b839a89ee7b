"""The OpenAI API and servers that speak like it: the HTTP client and what its refusals mean."""

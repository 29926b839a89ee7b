"""An Ollama server: the HTTP client and what its refusals mean."""

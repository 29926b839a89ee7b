"""Messages and the knowledge extracted from them, and how new knowledge is reconciled with what is known."""

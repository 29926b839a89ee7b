"""Telegram Desktop exports and Bot API messages, read one message at a time."""

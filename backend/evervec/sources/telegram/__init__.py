"""Telegram Desktop exports and Bot API messages, read one message at a time.

Read `reader` first: it uses `export_stream` for the file and `fields` for a message.
"""

"""Where text comes from, a folder a kind of source: files, SQL tables, Telegram chats. What becomes of it is elsewhere.

`files` lists and reads files, `structure` says where a text may be cut, `sql` describes tables and turns their records
into documents, `telegram` reads exports and messages.
"""

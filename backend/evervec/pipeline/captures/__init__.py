"""How writes to an attached table are noticed, wherever the table is: each way answers the same few questions.

Read `capture`, then `records`, and `opening`, which chooses.
"""

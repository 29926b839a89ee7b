"""Search by words: how the words of rows are filled, how often each occurs, and which rows have those of a question."""

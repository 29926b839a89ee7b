"""From a question to hits: the question's vector, the engine that answers, the rows that are still there."""

"""Search: embed the text, ask the engines, re-join what they find to the present rows."""

"""Files as documents: which there are, what is in them; what is made of a document is not told here."""

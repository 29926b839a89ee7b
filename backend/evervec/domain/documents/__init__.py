"""Documents: what a source delivers, how it is cut into chunks, and how new chunks are compared with stored ones."""

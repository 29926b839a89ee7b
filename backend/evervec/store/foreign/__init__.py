"""Tables of an SQL source, in any schema: described, read in pieces, never written."""

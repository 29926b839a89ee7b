"""Tables of other people, in whatever schema they are: described, read in pieces, never written."""

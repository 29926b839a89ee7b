"""The files of mirrors: written whole or not at all, checked against their manifest, locked by one writer."""

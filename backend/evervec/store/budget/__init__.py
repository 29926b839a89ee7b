"""What was sent to providers, and how much may be: the ledger, limits and ceilings."""

"""What text comes from: chat exports now; files and SQL tables are their own files here."""

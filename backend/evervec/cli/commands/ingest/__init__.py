"""The commands by which text comes in: chat exports, files, SQL sources, a watch."""

"""The terminal: options that commands share, stdout and stderr, how a command runs and how it fails."""

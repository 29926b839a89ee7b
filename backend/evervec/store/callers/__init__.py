"""What a program that uses the library brings along: its mapped classes, its sessions, and its open transactions."""

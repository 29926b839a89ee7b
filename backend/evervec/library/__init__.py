"""Evervec as a library in a program, without a server. Nothing is started that the caller did not start."""

"""Evervec inside of a program: the engine without a server. Nothing is started that the caller did not start."""

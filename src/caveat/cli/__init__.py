"""The command line: one file per command, and the only place where a string becomes a function."""

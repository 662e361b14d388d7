"""The command line: its commands, its options, and how they are read."""

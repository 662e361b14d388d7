"""A module for each command: each thin, from options to output."""

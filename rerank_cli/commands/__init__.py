"""One module a command: each thin, from options to `pipeline` to output."""

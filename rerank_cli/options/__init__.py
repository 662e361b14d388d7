"""The options of the command line, one alias each: names, help, and the group they show in.

Declares only; `cli` says which command takes which, and the commands say what they do.
"""

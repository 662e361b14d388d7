"""Documents to a ranking: cut, scored, selected. Reads nothing and prints nothing."""

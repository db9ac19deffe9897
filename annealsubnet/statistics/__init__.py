"""Statistics: what a network does on data, as sums over examples that no number of examples makes larger."""

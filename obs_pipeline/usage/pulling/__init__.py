"""Sources that are asked for what is new, and the position up to which each was read."""

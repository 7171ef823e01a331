"""Which settings of a recipe are best, and which experts belong together: what is tried next, on which probes."""

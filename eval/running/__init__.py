"""Models in memory: loaded, merged, asked, shared."""

"""Scores with intervals: what a merge keeps, against its sources and against other merges."""

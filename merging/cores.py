import os


def cores() -> int:
    """Processor cores that this process may use: two workers on one core only take its cache from each other."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

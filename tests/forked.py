"""A process of its own for what is killed in it, begun in no time: a fork has all that this one has imported."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import TextIO

import torch


def forked(run: Callable[[], object]) -> tuple[BaseProcess, TextIO]:
    """The process that runs `run`, and what it prints."""
    read, write = os.pipe()

    def begin() -> None:
        torch.set_num_threads(1)  # OpenMP's other threads are not in the fork: waiting for them would not end
        sys.stdout = os.fdopen(write, "w", buffering=1)
        run()
        sys.stdout.flush()

    process = multiprocessing.get_context("fork").Process(target=begin)
    process.start()
    os.close(write)
    return process, os.fdopen(read)

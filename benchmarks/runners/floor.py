"""The floor of input and output: read every byte of some models into one buffer, write the first again. OUT MODEL..."""

import sys
from pathlib import Path

import numpy as np

from benchmarks.runners.clock import done, ready

BLOCK = 64 << 20
start = ready()
buffer = np.empty(BLOCK, np.uint8)
with Path(sys.argv[1]).open("wb") as out:
    for number, model in enumerate(sys.argv[2:]):
        for path in sorted(Path(model).glob("*.safetensors")):
            data = np.memmap(path, np.uint8, "r")
            for at in range(0, len(data), BLOCK):
                part = buffer[: min(BLOCK, len(data) - at)]
                part[:] = data[at : at + BLOCK]
                if number == 0:
                    out.write(part.data)
done(start)

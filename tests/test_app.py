"""`python app.py`: what it says before it starts."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said_at_once():
    told = subprocess.run([sys.executable, "app.py", "--device", "cuda"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 2
    assert "offers no cuda" in told.stderr
    assert "Traceback" not in told.stderr

"""`python app.py`: what it says before it starts, and that it does start."""

import subprocess
import sys
from pathlib import Path

import gradio as gr
import pytest
import torch
from gradio import networking

from ui.app import launch_kwargs
from ui.jobs import Jobs, LiveWorker
from ui.services import Services

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said_at_once():
    told = subprocess.run([sys.executable, "app.py", "--device", "cuda"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 2
    assert "offers no cuda" in told.stderr
    assert "Traceback" not in told.stderr


def test_it_starts_on_a_machine_too_busy_to_answer_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(networking, "url_ok", lambda _: False)  # what Gradio finds out within 3 seconds
    services = Services(tmp_path, tmp_path, LiveWorker(), Jobs(tmp_path), {}, tmp_path)
    with gr.Blocks(analytics_enabled=False) as demo:
        gr.Markdown("here")
    demo.launch(server_name="127.0.0.1", quiet=True, prevent_thread_lock=True, **launch_kwargs(services))
    demo.close()

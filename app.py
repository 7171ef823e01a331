"""Start-up only. The live worker imports this file again, so nothing heavy stands outside main()."""

import argparse
import os
import socket
import sys


def main() -> int:
    from merging.command import add_device
    from merging.device import TOLD, choose_device
    from merging.errors import UserError

    parser = argparse.ArgumentParser(description="Mergescope's page; PORT picks its port.", allow_abbrev=False)
    add_device(parser)
    device = parser.parse_args().device
    if device != "auto":
        try:
            choose_device(device)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        os.environ[TOLD] = device  # for the live worker and every long job
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    port = _port(os.environ.get("PORT", "7860"))
    if port is None:
        print(f"PORT must be a number from 1 to 65535, not {os.environ['PORT']!r}.", file=sys.stderr)
        return 2
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    if _taken(host, port):
        print(f"Port {port} is taken. Pick another one: PORT={port + 1} make run", file=sys.stderr)
        return 2

    from ui.services import open_services

    services = open_services()  # starts the worker, which loads torch while the page is built here

    from ui.app import build_app, launch_kwargs

    demo = build_app(services)
    print(f"Mergescope: http://{host}:{port}", flush=True)
    demo.launch(server_name=host, server_port=port, quiet=True, **launch_kwargs(services))
    return 0


def _port(text: str) -> int | None:
    return int(text) if text.isdecimal() and 0 < int(text) < 65536 else None


def _taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())

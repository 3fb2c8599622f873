"""The page on a port of this machine: started, announced, stopped with Ctrl-C.

Gradio's server with everything off that asks the network or shows more than the page: analytics, sharing, fonts of
others, API pages, uploads of more than a text.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

from electra.app.models import open_tabs
from electra.app.page import build_page
from electra.app.style import STYLE, theme
from electra.config.serving import AppConfig


def app(config: AppConfig) -> None:
    """Open the models and serve their page until Ctrl-C; ValueError for what cannot be opened or a port in use."""
    check_installed()
    check_place(config.host, config.port)
    tabs = open_tabs(config.models, config.device)
    page = build_page(tabs)
    address = start_page(page, config.host, config.port)
    print(f"models    {', '.join(tab.name for tab in tabs)}")
    print(f"page      {address}")
    if config.host not in ("127.0.0.1", "localhost", "::1"):
        print("note      everybody who reaches this machine can use the page; nothing asks who they are")
    print("Ctrl-C stops it")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("\nstopped")
    finally:
        page.close(verbose=False)


def start_page(page: Any, host: str, port: int) -> str:
    """Serve a page in a thread; returns its address. ValueError where that cannot be."""
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            max_file_size="100kb",
            theme=theme(),
            css=STYLE,
            mcp_server=False,
        )
    except OSError as error:
        raise ValueError(f"the page cannot be served at {host}, port {port}: {error}") from None
    return str(address)


def serve_space(models: Sequence[str]) -> None:
    """Serve from the folder of a Space: to everybody where it is one, to this machine where it is tried out."""
    host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"
    app(AppConfig(models=tuple(models), host=host, port=int(os.environ.get("GRADIO_SERVER_PORT", "7860"))))


def check_installed() -> None:
    """ValueError where Gradio is missing. Tells it, before it is imported, to ask nothing of the network."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ValueError("the page needs Gradio: pip install 'electra-toolkit[app]'") from None


def check_place(host: str, port: int) -> None:
    """ValueError unless something can be served at this port of this address."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise ValueError(f"--host {host} is no address of this machine: leave it out, or use 0.0.0.0 for all") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except PermissionError:
            raise ValueError(f"port {port} is for administrators alone: choose one above 1023 with --port") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ValueError(f"port {port} of {host} is in use: choose another one with --port") from None
            raise ValueError(f"--host {host} is no address of this machine: leave it out, or use 0.0.0.0") from None

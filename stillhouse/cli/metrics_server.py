"""The door of the metrics: HTTP on this machine's loopback, and on no other address."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

import click

from stillhouse.cli.metrics import Metrics
from stillhouse.foundation.errors import UserError
from stillhouse.foundation.events import Event

ADDRESS = "127.0.0.1"
_PATIENCE_S = 5.0


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextlib.contextmanager
def served(port: int | None) -> Iterator[list[Callable[[Event], None]]]:
    """Serve metrics while the block runs; gives what is to hear the events: nobody, without a port.

    Args:
        port: on the loopback address; 0: any that is free. Which one is printed.

    Raises:
        UserError: the port can't be had.
    """
    if port is None:
        yield []
        return
    metrics = Metrics()
    try:
        server = _Server((ADDRESS, port), _handler(metrics))
    except OSError as error:
        raise UserError(
            f"--metrics-port {port}: {ADDRESS}:{port} can't be listened at ({error.strerror or error}): name another "
            "port, or 0 for any that is free"
        ) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        thread.start()
        click.echo(f"metrics: http://{ADDRESS}:{server.server_address[1]}/metrics")
        try:
            yield [metrics.hear]
        finally:
            server.shutdown()
            thread.join()


def _handler(metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "the metrics are at /metrics")
                return
            content = metrics.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: the terminal belongs to the run."""

    return Handler

"""Stands in for Grafana where its image cannot be had: says that it is well, and that it is not Grafana."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WANTED = (
    Path("/etc/grafana/provisioning/datasources"),
    Path("/var/lib/grafana/dashboards"),
    Path("/run/secrets/grafana-password"),
)
"""What compose has to have mounted for Grafana itself to come up with its dashboards."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        missing = [str(path) for path in WANTED if not path.exists()]
        body = f"a stand-in for Grafana; missing: {missing}".encode()
        self.send_response(503 if missing or self.path != "/api/health" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


ThreadingHTTPServer(("", 3000), Handler).serve_forever()

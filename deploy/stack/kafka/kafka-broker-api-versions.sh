#!/usr/bin/env python3
"""Asks a broker for the versions it speaks, as the tool of this name does, whose jar Maven does not bring."""

import socket
import struct
import sys

host, port = sys.argv[sys.argv.index("--bootstrap-server") + 1].rsplit(":", 1)
client = b"health"
request = struct.pack(">hhih", 18, 0, 1, len(client)) + client  # ApiVersions, version 0
with socket.create_connection((host, int(port)), timeout=9) as broker:
    broker.sendall(struct.pack(">i", len(request)) + request)
    head = broker.makefile("rb").read(14)  # size, correlation, error, number of versions
_, correlation, error, versions = struct.unpack(">iihi", head)
print(f"{host}:{port} speaks {versions} kinds of requests")
sys.exit(correlation != 1 or error != 0 or versions < 1)

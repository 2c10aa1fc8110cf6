"""Is a port free? Asked before a node starts, so that the answer can name the fix."""

from __future__ import annotations

import socket

from ragschema.errors import Unavailable


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now; port 0 always can."""
    if port == 0:
        return True
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError:
            return False
    return True


def require_free(what: str, field: str, host: str, port: int) -> None:
    """Raises Unavailable, naming the port and the fix, when it is taken."""
    if port_is_free(host, port):
        return
    fix = "use --port 0 for any free port" if field == "coordinator.port" else "set port: 0"
    raise Unavailable(
        f"port {port} on {host}, which {what} wants, is taken or not ours to use",
        field=field,
        hint=f"stop what listens there, choose another port, or {fix}",
    )

"""One call of an XML-RPC method over a unix socket. Used by `supervised` only."""

import base64
import http.client
import socket
import xmlrpc.client  # nosec B411  # its other end is a supervisord of ours, on a socket of mode 0700
from pathlib import Path
from typing import Any


def call(path: Path, user: str, password: str, patience: float, method: str, *arguments: Any) -> Any:
    """Raises xmlrpc.client.Fault where it refuses, OSError where nobody answers in `patience` seconds."""
    transport = _Transport(path, base64.b64encode(f"{user}:{password}".encode()).decode(), patience)
    with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport) as proxy:
        try:
            return getattr(proxy, method)(*arguments)
        except xmlrpc.client.ProtocolError as error:
            raise OSError(f"it answers {error.errcode} {error.errmsg}") from None
        except http.client.HTTPException as error:
            raise OSError(f"it breaks off ({type(error).__name__})") from None


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path, key: str, patience: float) -> None:
        super().__init__(headers=[("Authorization", f"Basic {key}")])
        self._path = path
        self._patience = patience

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _Connection(self._path, self._patience)
        self._connection = host, connection  # what `close` closes
        return connection


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

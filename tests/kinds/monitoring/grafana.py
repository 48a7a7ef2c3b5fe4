"""A Grafana as its HTTP API is, for dashboards: what it adds when it keeps one, and what it refuses.

Of the API of Grafana 10: /api/search, /api/dashboards/db, /api/dashboards/uid/<uid>.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "glsa_a-secret-token"


class Grafana:
    def __init__(self) -> None:
        self.boards: dict[str, dict[str, Any]] = {}  # as they are kept, by uid
        self.folders: dict[str, str] = {}
        self.saved = 0
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """At the port of before, where there was one."""
        grafana = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(grafana.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(grafana.post(self.path, body))

            def do_DELETE(self) -> None:
                self._answer(grafana.delete(self.path))

            def _answer(self, found: tuple[int, Any]) -> None:
                code, said = found
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    code, said = 401, {"message": "Invalid API key"}
                body = json.dumps(said).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *said: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def get(self, path: str) -> tuple[int, Any]:
        parts = urlsplit(path)
        if parts.path == "/api/search":
            tags = parse_qs(parts.query).get("tag", [])
            found = [one for one in self.boards.values() if set(tags) <= set(one.get("tags") or ())]
            return 200, [{"uid": one["uid"], "title": one["title"], "tags": one["tags"]} for one in found]
        uid = parts.path.removeprefix("/api/dashboards/uid/")
        if uid in self.boards:
            return 200, {"dashboard": self.boards[uid], "meta": {"folderUid": self.folders.get(uid, "")}}
        return 404, {"message": "Dashboard not found"}

    def post(self, path: str, said: dict[str, Any]) -> tuple[int, Any]:
        board = said["dashboard"]
        if path != "/api/dashboards/db" or not board.get("title"):
            return 400, {"message": "Dashboard title cannot be empty"}
        kept = self.boards.get(board.get("uid", ""))
        if kept is not None and not said.get("overwrite") and board.get("version") != kept["version"]:
            return 412, {"status": "version-mismatch"}
        self.saved += 1
        uid = board.get("uid") or f"made-{self.saved}"
        number = kept["id"] if kept else self.saved
        added = {"id": number, "uid": uid, "version": kept["version"] + 1 if kept else 1}
        panels = [{"pluginVersion": "10.1.0", **one} for one in board.get("panels") or ()]
        self.boards[uid] = {**board, **added, "panels": panels}
        self.folders[uid] = said.get("folderUid", "")
        return 200, {"uid": uid, "status": "success", "version": added["version"]}

    def delete(self, path: str) -> tuple[int, Any]:
        found = self.boards.pop(path.removeprefix("/api/dashboards/uid/"), None)
        return (200, {"message": "deleted"}) if found else (404, {"message": "Dashboard not found"})

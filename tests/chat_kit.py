"""A chat endpoint on this machine, for tests of captions."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any], int], tuple[int, bytes, dict[str, str]]]


def said(text: str) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode(), {}


class Server:
    """`reply` gets the parsed question and its number, from 0 on."""

    def __init__(self) -> None:
        self.questions: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.busy = self.most_busy = 0
        self.reply: Reply = lambda question, number: said("a red apple")
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def serve(self, call: BaseHTTPRequestHandler) -> None:
        question = json.loads(call.rfile.read(int(call.headers["Content-Length"])))
        with self._lock:
            number = len(self.questions)
            self.questions.append(question)
            self.headers.append(dict(call.headers))
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        status, body, headers = self.reply(question, number)
        with self._lock:
            self.busy -= 1
        call.send_response(status if call.path == "/v1/chat/completions" else 404)
        for key, value in headers.items():
            call.send_header(key, value)
        call.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            call.wfile.write(body)

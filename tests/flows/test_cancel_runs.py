"""Cancelling over HTTP, against a server that only remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flows.servers.cancel_runs import cancel_deployed_runs


class FakePrefect(ThreadingHTTPServer):
    runs: list[dict[str, Any]]
    posts: list[tuple[str, Any]]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, FakePrefect)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.posts.append((self.path, body))
        answer: Any = {}
        if self.path.endswith("/filter"):
            answer = server.runs
        elif self.path.endswith("/set_state"):
            server.runs = [run for run in server.runs if run["id"] not in self.path]
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FakePrefect]:
    fake = FakePrefect(("127.0.0.1", 0), Handler)
    fake.runs, fake.posts = [], []
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.shutdown()
    thread.join()
    fake.server_close()


def test_runs_of_the_worker_are_cancelled_and_those_of_the_terminal_are_not(server: FakePrefect) -> None:
    server.runs = [{"id": "mine", "deployment_id": "train"}, {"id": "other", "deployment_id": None}]
    api = f"http://127.0.0.1:{server.server_address[1]}/api"
    assert cancel_deployed_runs(api, timeout=5.0) == 1
    states = [(path, body) for path, body in server.posts if path.endswith("/set_state")]
    assert states == [("/api/flow_runs/mine/set_state", {"state": {"type": "CANCELLING"}})]


def test_a_server_that_is_gone_has_nothing_to_cancel() -> None:
    assert cancel_deployed_runs("http://127.0.0.1:9/api", timeout=1.0) == 0

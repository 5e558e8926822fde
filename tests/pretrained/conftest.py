"""Checkpoint files made on the spot, a local server that misbehaves on demand, and no way out to the real network."""

import dataclasses
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from swin_umamba_nnunet.pretrained import download, locate, registry
from swin_umamba_nnunet.pretrained.registry import get_record
from swin_umamba_nnunet.pretrained.variants import inventory


@pytest.fixture(autouse=True)
def secluded(tmp_path, monkeypatch):
    """An empty cache, an empty checkout, and a proxy that refuses: nothing is found and nothing gets out."""
    monkeypatch.delenv(locate.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(locate, "checkout_folder", lambda: tmp_path / "checkout" / "pretrained_weights")
    monkeypatch.setattr(download, "HTTP_HOSTS", frozenset({"127.0.0.1", "nowhere.invalid"}))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def state_dict():
    """State dict of a named checkpoint: for every key a value of its own, of stride 0, so that files take kilobytes."""
    return lambda name="vmamba_tiny_v0": {
        key: torch.tensor(1 + i / 1000).expand(shape)
        for i, (key, shape) in enumerate(inventory(get_record(name)).items())
    }


@pytest.fixture
def mini(monkeypatch):
    """A record of a VMamba nobody published, known to the registry for one test: networks of it are built at once."""
    record = dataclasses.replace(
        get_record("vmamba_tiny_v0"),
        name="vmamba_mini",
        title="VMamba-Mini",
        file_name="mini.pth",
        variant=registry.Variant((1, 1), 16, 2, 16, 1),
        size_bytes=None,
        sha256=None,
        other_file_names=(),
    )
    monkeypatch.setattr(registry, "RECORDS", (*registry.RECORDS, record))
    return record


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint file; returns its path."""

    def write(content, name="weights.pth", folder=None):
        path = (folder or tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        return path

    return write


@pytest.fixture
def saved(save, state_dict):
    """A function (checkpoint's name, file's name, folder) -> a file of it."""
    return lambda name="vmamba_tiny_v0", *where: save({"model": state_dict(name)}, *where)


@dataclass
class Server:
    """What the next answers are.  `script` holds one entry per request to come; then everything goes well.

    An entry is an HTTP status, or a number of bytes after which the connection breaks off ("break 100"), or "hang" (say
    nothing), "stall 100" (say nothing after 100 bytes), "wait" (answer once `released` is set), "redirect URL", "wrong"
    (other bytes of the same length).
    """

    content: bytes = b"PK\x03\x04" + bytes(range(256)) * 1000
    etag: str = '"first"'
    resumable: bool = True
    askew: int = 0  # how far from the byte asked for a resumed answer says that it starts
    script: list[str] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server: Server = self.server.behaviour
        server.requests.append(dict(self.headers))
        server.arrived.set()
        action, _, amount = (server.script.pop(0) if server.script else "").partition(" ")
        if action.isdigit():
            return self.send_error(int(action))
        if action == "redirect":
            self.send_response(302)
            self.send_header("Location", amount)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if action in ("hang", "wait"):
            server.released.wait(60)
        asked = self.headers.get("Range", "") if server.resumable else ""
        start = 0
        if asked and self.headers.get("If-Range") == server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(server.content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start + server.askew}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("Content-Length", str(len(server.content) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        body = server.content[start : start + int(amount)] if amount else server.content[start:]
        if action == "wrong":
            body = body[:4] + b"?" * (len(body) - 4)
        self.wfile.write(body)
        self.wfile.flush()
        if action == "stall":
            server.released.wait(60)
        self.close_connection = True
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = False  # so that closing waits for them, and none outlives the test
    http.handle_error = lambda *args: None  # a client that gave up is part of the plan
    http.behaviour = Server(url=f"http://127.0.0.1:{http.server_port}/file.pth")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield http.behaviour
    http.behaviour.released.set()
    http.shutdown()
    http.server_close()
    thread.join()

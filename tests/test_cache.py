"""Downloads, from a loopback server that breaks off, lies and serves wrong bytes."""

import hashlib
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from triptych import cache
from triptych.check import InputError

BODY = bytes(range(256)) * 1000
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()
MD5 = "md5:" + hashlib.md5(BODY, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers with what the server's behaviours say, the last of them again and again."""

    def do_GET(self):
        server = self.server
        start = self.headers.get("Range", "")
        server.asked.append(start)
        behaviour = server.behaviours.pop(0) if len(server.behaviours) > 1 else server.behaviours[0]
        behaviour(self, int(start[6:-1]) if start else 0)

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def honest(handler, start, body=BODY, upto=None, claim=None):
    """Send the body from ``start``, break off before byte ``upto``, claim a length of ``claim``."""
    if start >= len(body):
        return handler.answer(416)
    rest = body[start:]
    length = len(rest) if claim is None else claim - start
    span = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
    return handler.answer(206 if start else 200, rest if upto is None else body[start:upto], length, **span)


def deaf(handler, start, upto=None):
    """Ignore the range."""
    handler.answer(200, BODY[:upto], len(BODY))


def status(code):
    return lambda handler, start: handler.answer(code, b"an error page")


def beside_the_range(handler, start):
    """Answer 206 with another part than was asked for."""
    handler.answer(206, BODY, Content_Range=f"bytes 0-{len(BODY) - 1}/{len(BODY)}")


def silent(handler, start):
    time.sleep(1.5)
    handler.close_connection = True


def moved(handler, start):
    handler.answer(302, Location="/elsewhere")


def unlengthed(handler, start):
    """No Content-Length: the end of the connection is the end of the file."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(BODY)


WRONG = BODY[:-1] + b"!"


@pytest.fixture
def serve(monkeypatch):
    """A function that starts a server with the given behaviours; ``serve.asked`` are the ranges asked for."""
    servers = []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def start(*behaviours):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.behaviours, server.asked = list(behaviours), []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        start.asked = server.asked
        return f"http://127.0.0.1:{server.server_address[1]}/file"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(url, to, checksum=SHA256, **kwargs):
    return cache.fetch(url, checksum, "sub/file", to=to, pause=0.001, **{"timeout": 5.0, **kwargs})


def left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


HALF = len(BODY) // 2
GOOD = {  # what the server does in turn: the ranges that it is asked for
    "honest": ([honest], [0]),
    "breaks off half way": ([partial(honest, upto=HALF), honest], [0, HALF]),
    "breaks off three times": ([partial(honest, upto=n) for n in (9, 99, HALF)] + [honest], [0, 9, 99, HALF]),
    "breaks off and ignores the range": ([partial(honest, upto=HALF), deaf], [0, HALF]),
    "breaks off and answers another range": ([partial(honest, upto=HALF), beside_the_range, honest], [0, HALF]),
    "claims too long a file": ([partial(honest, claim=len(BODY) + 999)], [0]),
    "sends no length": ([unlengthed], [0]),
    "fails once": ([status(500), honest], [0, 0]),
    "is too busy twice": ([status(429), status(503), honest], [0, 0, 0]),
    "says nothing once": ([silent, honest], [0, 0]),
    "sends elsewhere": ([moved, honest], [0, 0]),
}


@pytest.mark.parametrize(("behaviours", "asked"), GOOD.values(), ids=GOOD)
def test_what_is_fetched_in_the_end(serve, tmp_path, behaviours, asked):
    path = fetch(serve(*behaviours), tmp_path, timeout=1.0)
    assert path.read_bytes() == BODY
    assert left(tmp_path) == ["sub/file"]
    assert serve.asked == [f"bytes={start}-" if start else "" for start in asked]


@pytest.mark.parametrize("checksum", [SHA256, MD5, SHA256.upper().replace("SHA", "sha")])
def test_what_is_there_is_not_fetched_again(serve, tmp_path, checksum):
    url = serve(honest)
    path = fetch(url, tmp_path, checksum)
    assert fetch(url, tmp_path, checksum) == path
    assert len(serve.asked) == 1


BAD = {  # what the server does, what the sentence says, what is left
    "wrong bytes": ([partial(honest, body=WRONG)], f"expected {SHA256}, got sha256:", []),
    "too short a length": ([partial(honest, claim=HALF)], "wrong checksum", []),
    "too short a file": ([partial(honest, body=BODY[:-1])], "wrong checksum", []),
    "wrong bytes and too long a length": (  # as if it always broke off
        [partial(honest, body=WRONG, claim=len(BODY) + 9)],
        f"broke off after {len(BODY):,} of",
        ["sub/file.part"],
    ),
    "wrong bytes that ignore the range": (
        [partial(honest, upto=9), lambda h, _: h.answer(200, WRONG)],
        "wrong checksum",
        [],
    ),
    "not found": ([status(404)], "answered 404 Not Found", []),
    "forbidden": ([status(403)], "answered 403", []),
    "always failing": ([status(500)], "could not be fetched (Internal Server Error)", []),
    "always breaking off": (
        [partial(deaf, upto=HALF)],
        f"broke off after {HALF:,} of {len(BODY):,} bytes); the first {HALF:,} bytes are kept",
        ["sub/file.part"],
    ),
    "always silent": ([silent], "timed out", []),
}


@pytest.mark.parametrize(("behaviours", "expected", "kept"), BAD.values(), ids=BAD)
def test_what_fails_is_one_sentence_and_never_gets_the_name(serve, tmp_path, behaviours, expected, kept):
    url = serve(*behaviours)
    with pytest.raises(cache.DownloadError) as caught:
        fetch(url, tmp_path, timeout=0.1 if "timed out" in expected else 5.0)
    assert expected in str(caught.value)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == kept
    assert len(serve.asked) < 10


def test_no_server(tmp_path, serve):
    with pytest.raises(cache.DownloadError, match="could not be fetched \\(Connection refused\\)"):
        fetch("http://127.0.0.1:9/file", tmp_path)
    assert left(tmp_path) == []


PARTS = {  # what lies there: the ranges asked for
    "a start": (BODY[:1234], [1234]),
    "the whole": (BODY, []),
    "the start of another version": (b"old" * 99, [297, 0]),
    "more than the whole": (BODY + b"more", [len(BODY) + 4, 0]),
    "nothing": (b"", [0]),
}


@pytest.mark.parametrize(("part", "asked"), PARTS.values(), ids=PARTS)
def test_a_second_fetch_goes_on_with_what_the_first_left(serve, tmp_path, part, asked):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.part").write_bytes(part)
    assert fetch(serve(honest), tmp_path).read_bytes() == BODY
    assert serve.asked == [f"bytes={start}-" if start else "" for start in asked]
    assert left(tmp_path) == ["sub/file"]


def test_progress_counts_to_the_whole(serve, tmp_path):
    told = []
    fetch(serve(partial(honest, upto=HALF), honest), tmp_path, progress=lambda *step: told.append(step))
    assert told[-1] == (len(BODY), len(BODY))
    assert [received for received, _ in told] == sorted(received for received, _ in told)
    assert {total for _, total in told} == {len(BODY)}


CHILD = """
import sys
from pathlib import Path
from triptych import cache
cache.fetch(sys.argv[1], sys.argv[2], "file", to=Path(sys.argv[3]))
"""


def test_two_processes_fetch_once(serve, tmp_path):
    def slow(handler, start):
        time.sleep(0.6)
        honest(handler, start)

    url = serve(slow)
    children = [subprocess.Popen([sys.executable, "-c", CHILD, url, SHA256, tmp_path]) for _ in range(2)]
    assert [child.wait(30) for child in children] == [0, 0]
    assert serve.asked == [""]
    assert (tmp_path / "file").read_bytes() == BODY
    assert left(tmp_path) == ["file"]


def test_who_waited_for_a_download_that_failed_fetches_itself(serve, tmp_path):
    def slow_and_wrong(handler, start):
        time.sleep(0.6)
        honest(handler, start, body=WRONG)

    url = serve(slow_and_wrong, honest)
    command = [sys.executable, "-c", CHILD, url, SHA256, tmp_path]
    children = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert sorted(child.wait(30) for child in children) == [0, 1]
    assert (tmp_path / "file").read_bytes() == BODY
    assert left(tmp_path) == ["file"]


def test_a_full_disk_keeps_what_came(serve, tmp_path):
    """The system's own limit on the size of a file stands for the full disk."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))" + CHILD
    url = serve(honest)
    done = subprocess.run(
        [sys.executable, "-c", limited, url, SHA256, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip().splitlines()[-1].startswith("OSError: [Errno 27]")
    assert (tmp_path / "file.part").read_bytes() == BODY[:100_000]
    cache.fetch(url, SHA256, "file", to=tmp_path)
    assert serve.asked == ["", "bytes=100000-"]
    assert (tmp_path / "file").read_bytes() == BODY


def test_another_file_in_the_way_is_left_alone(serve, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"mine")
    with pytest.raises(InputError, match="move it away"):
        fetch(serve(honest), tmp_path)
    assert (tmp_path / "sub" / "file").read_bytes() == b"mine"
    assert serve.asked == []


@pytest.mark.parametrize(
    ("url", "checksum", "name"),
    [
        ("file:///etc/passwd", SHA256, "file"),
        ("ftp://127.0.0.1/file", SHA256, "file"),
        ("http://127.0.0.1/file", "sha256:abc", "file"),
        ("http://127.0.0.1/file", "crc:" + "0" * 64, "file"),
        ("http://127.0.0.1/file", "", "file"),
        ("http://127.0.0.1/file", SHA256, "/file"),
        ("http://127.0.0.1/file", SHA256, "../file"),
        ("http://127.0.0.1/file", SHA256, ""),
    ],
)
def test_wrong_arguments(tmp_path, url, checksum, name):
    with pytest.raises(InputError, match=" must be "):
        cache.fetch(url, checksum, name, to=tmp_path)
    assert left(tmp_path) == []


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "mine"))
    assert cache.folder() == tmp_path / "mine"
    monkeypatch.delenv("TRIPTYCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder().name == "triptych"


def test_no_torch():
    code = "import sys, triptych.cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

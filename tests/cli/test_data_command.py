"""triptych data info, triptych data fetch."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from triptych.cli import main
from triptych.data import fetch, load
from triptych.data.download import Download, DownloadSet


@pytest.fixture
def pictures(tmp_path):
    """Two splits of two classes, of mixed sizes."""
    for split, count in (("train", 3), ("test", 1)):
        for label in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (20 + i, 30), (i, 2, 3)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


def test_info_as_json(capsys, pictures):
    assert main(["data", "info", str(pictures), "--side", "8", "--fit", "squash", "--split", "train", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "path": str(pictures),
        "kind": "folder of pictures",
        "splits": ["train", "test"],
        "split": "train",
        "images": 6,
        "shape": [3, 8, 8],
        "classes": {"cat": 3, "dog": 3},
        "checksum": "sha256:" + load(pictures, side=8, fit="squash", split="train").checksum(),
    }
    assert err == ""


def test_info_as_text(capsys, pictures):
    assert main(["data", "info", str(pictures), "--side", "8", "--limit", "5"]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    for line in (["images", "5"], ["splits", "train,", "test"], ["cat", "3"], ["dog", "2"]):
        assert line in words


def test_info_of_many_classes_and_of_none(capsys, tmp_path):
    for i in range(23):
        (tmp_path / "many" / f"{i:02}").mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "many" / f"{i:02}" / "a.png")
    assert main(["data", "info", str(tmp_path / "many")]) == 0
    assert "and 3 more classes" in capsys.readouterr().out
    assert main(["data", "info", str(tmp_path / "many" / "00" / "a.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["info", "nowhere"], "nowhere does not exist"),
        (["info", "digits", "--split", "train"], "digits has no splits"),
        (["info", "digits", "--fit", "stretch"], "fit must be one of crop, squash"),
        (["fetch", "mnits"], "did you mean mnist?"),
    ],
)
def test_wrong_use_is_one_sentence(capsys, words, expected):
    assert main(["data", *words]) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert (out, err.count("\n")) == ("", 1)


def test_mixed_sizes_name_the_option(capsys, pictures):
    assert main(["data", "info", str(pictures)]) == 2
    assert "give --side N" in capsys.readouterr().err


BODY = b"some bytes" * 1000


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A set of one file on a loopback server; a function that sets its checksum."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def register(checksum):
        url = f"http://127.0.0.1:{server.server_address[1]}/a.bin"
        monkeypatch.setitem(fetch.SETS, "toy", DownloadSet("toy", (Download(url, "a.bin", checksum),)))

    yield register
    server.shutdown()
    server.server_close()


def test_fetch(capsys, served, tmp_path):
    served("sha256:" + hashlib.sha256(BODY).hexdigest())
    assert main(["data", "fetch", "toy"]) == 0
    out, err = capsys.readouterr()
    assert out == f"toy is in {tmp_path / 'cache' / 'toy'}\n"
    assert err.startswith("toy: 1 of 1")
    assert (tmp_path / "cache" / "toy" / "a.bin").read_bytes() == BODY
    assert main(["data", "fetch", "toy", "--to", str(tmp_path / "mine"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "toy", "folder": str(tmp_path / "mine")}


def test_a_fetch_that_fails_has_status_1(capsys, served, tmp_path):
    served("sha256:" + "0" * 64)
    assert main(["data", "fetch", "toy"]) == 1
    out, err = capsys.readouterr()
    assert "wrong checksum" in err
    assert "Traceback" not in err
    assert out == ""
    assert list((tmp_path / "cache").rglob("*.bin")) == []


def test_weights_are_fetched_and_then_found(capsys, monkeypatch, served, tmp_path):
    """From the tests' own server, under the name of Inception's weights."""
    from triptych.metrics.weights import KNOWN, Published

    served("sha256:" + hashlib.sha256(BODY).hexdigest())
    toy = fetch.SETS["toy"].files[0]
    monkeypatch.setitem(KNOWN, "inception-fid", Published(toy.url, toy.checksum, "weights.pth"))
    assert main(["data", "fetch", "inception-fid", "--json"]) == 0
    place = tmp_path / "cache" / "weights" / "weights.pth"
    assert json.loads(capsys.readouterr().out) == {"name": "inception-fid", "file": str(place)}
    assert place.is_file()
    assert main(["data", "fetch", "inception-fid", "--to", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out == f"inception-fid is {tmp_path / 'mine' / 'weights.pth'}\n"

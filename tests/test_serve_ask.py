"""The client: which case it takes, what it writes, and what it says when nothing answers."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from serve import ask
from tests.hostile_uploads import hand_png

ANSWER = {
    "bone_age_months": 100.5,
    "bone_age": "8 years 5 months",
    "spread_months": 2.0,
    "distribution": [0.0] * 240,
    "warnings": [],
    "version": "ens-0",
    "recipe": "0",
    "request_id": "r",
}


class _Handler(BaseHTTPRequestHandler):
    """Answers every POST with `ANSWER`, or refuses when the sex is female; ready at the third question."""

    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        refused = "female" in self.path
        problem = {"detail": "It is refused.", "status": 422, "code": "blank"}
        self._answer(422 if refused else 200, problem if refused else ANSWER)

    def do_GET(self) -> None:
        type(self).asked += 1
        self._answer(200 if self.asked >= 3 else 503, {"detail": "Not yet.", "status": 503, "code": "unavailable"})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    _Handler.asked = 0
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "hand.png"
    path.write_bytes(hand_png(900, 600, depth=16))
    return path


def test_answer_is_printed_and_written_with_a_small_picture(
    url: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answer.json"
    assert ask.main([url, str(picture), "--sex", "male", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert (record["file"], record["sex"], record["answer"]) == ("hand.png", "male", ANSWER)
    small = Image.open(io.BytesIO(base64.b64decode(record["image_png_base64"])))
    assert (small.size, small.mode, small.getextrema()) == ((341, 512), "L", (0, 255))
    assert "8 years 5 months" in capsys.readouterr().out


def test_waits_until_ready(url: str, picture: Path) -> None:
    assert ask.main([url, str(picture), "--sex", "male", "--wait", "20"]) == 0
    assert _Handler.asked == 3


def test_refusal_is_told_with_its_code(url: str, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main([url, str(picture), "--sex", "female"]) == 1
    assert capsys.readouterr().err == "ask: It is refused. (422 blank)\n"


def test_no_service_is_told_in_one_sentence(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["http://127.0.0.1:1", str(picture), "--sex", "male"]) == 1
    error = capsys.readouterr().err
    assert "No bone-age service answers at http://127.0.0.1:1" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["hand.png"], ["hand.png", "--cohort", "c"], ["missing.png", "--sex", "male"]])
def test_wrong_call_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["http://127.0.0.1:1", *words]) == 2
    assert capsys.readouterr().err.startswith("ask: ")


def test_case_closest_to_the_median_is_taken_and_the_first_among_equals() -> None:
    cases = pd.DataFrame({"case_id": ["d", "c", "b", "a"], "bone_age_months": [90.0, 110.0, 110.0, np.inf]})
    assert ask.closest_to_median(cases)["case_id"] == "b"

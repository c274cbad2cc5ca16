"""Under stress over HTTP: what a service is asked, and what becomes of its replies."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest

from ensemble.__main__ import main
from ensemble.endpoint import Endpoint, SubjectError
from ensemble.stress import StressError
from ensemble.subjects import Answer, Query


class Service(BaseHTTPRequestHandler):
    """A service that answers a posted file in some way of its own."""

    def answer(self, body: bytes) -> tuple[int, dict | bytes]:
        """Status, and what stands in the JSON, or the body as it is."""
        raise NotImplementedError

    def do_POST(self):
        status, said = self.answer(self.rfile.read(int(self.headers["Content-Length"])))
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) + self.missing))
        self.send_header("Retry-After", "0")  # read where the status says to come again
        self.end_headers()
        self.wfile.write(data)

    missing = 0
    """Bytes that the header promises and that never come."""

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def running(service):
    """The address of such a service, which ends with the context."""
    server = HTTPServer(("127.0.0.1", 0), service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Theirs(Service):
    """A service that is not ours: a form, years, and a plausible number for everything but an empty file."""

    def answer(self, body):
        if b"PNG" not in body:
            return 400, {}
        return 200, {"result": {"years": 10.0 if b"\r\nm\r\n" in body else 9.0}}


class Broken(Service):
    """Refuses what is short, breaks at what is longer, and has no such page for the rest."""

    def answer(self, body):
        return {1: 422, 2: 500}.get(len(body), 404), b""


def test_only_what_a_service_says_of_the_file_is_a_refusal():
    with running(Broken) as url:
        answers = Endpoint(url=url).ask([Query(b"x" * n, "male") for n in (1, 2, 3)])
    assert [answer.reason for answer in answers] == ["http_422", "http_500", "http_404"]
    assert [answer.is_failure for answer in answers] == [False, True, True]


class Limited(Service):
    """Wants a key, and answers every other request with a wait."""

    asked = 0

    def answer(self, body):
        type(self).asked += 1
        status = 401 if self.headers["Authorization"] != "Bearer secret" else 429 if self.asked % 2 else 200
        return status, {"bone_age_months": 100.0, "code": "too_many"}


def test_a_service_that_counts_requests_is_asked_again_and_one_that_wants_a_key_gets_it():
    with running(Limited) as url:
        answers = Endpoint(url=url, key="secret").ask([Query(b"x", "male")] * 3)
        with pytest.raises(SubjectError, match="CARPAL_KEY"):
            Endpoint(url=url).ask([Query(b"x", "male")])
    assert [answer.months for answer in answers] == [100] * 3
    assert "secret" not in repr(Endpoint(url=url, key="secret"))


@pytest.mark.parametrize("key", ["secret\n", "sécret"])
def test_a_key_that_no_header_can_hold_is_refused_before_anything_is_asked(key):
    with pytest.raises(SubjectError, match=r"got one of \d letters that is not. Mend CARPAL_KEY") as refused:
        Endpoint(url="http://127.0.0.1:1", key=key)
    assert "cret" not in str(refused.value)


class Aged(Service):
    """Says the age that the query has in the field ``ca``."""

    def answer(self, body):
        return 200, {"bone_age_months": float(parse_qs(urlsplit(self.path).query).get("ca", ["1"])[0])}


def test_the_age_stands_in_the_field_that_a_service_has_for_it_and_is_left_out_where_there_is_none():
    with running(Aged) as url:
        answers = Endpoint(url=url, age_field="ca").ask([Query(b"x", "male", 126.5), Query(b"x", "male")])
    assert [answer.months for answer in answers] == [126.5, 1]


def test_the_age_is_stated_in_the_unit_that_a_service_reads():
    with running(Aged) as url:
        (answer,) = Endpoint(url=url, age_field="ca", age_unit="years").ask([Query(b"x", "male", 126.5)])
    assert answer.months == pytest.approx(126.5 / 12, abs=1e-4)


def told(folder, monkeypatch, *options):
    """What the command line makes of options: the endpoint, and what `stress` is told."""
    found = {}

    def asked(subject, source, suite, **named):
        found.update(named, endpoint=subject.__self__, suite=suite)
        raise StressError("stopped")

    monkeypatch.setattr("ensemble.stress.stress", asked)
    cv2.imwrite(str(folder / "0.png"), np.full((96, 80), 60, np.uint8))
    (folder / "labels.csv").write_text("case_id,bone_age_months,sex\n0,60,male\n")
    assert main(["stress", "http://127.0.0.1:1", str(folder), *options]) == 2
    return found


@pytest.mark.parametrize(("field", "num_left"), [("", 0), ("ca", 2)])
def test_on_the_command_line_a_service_may_be_asked_without_the_age(tmp_path, monkeypatch, field, num_left):
    found = told(tmp_path, monkeypatch, "--age-field", field)
    assert (found["states_age"], found["endpoint"].age_field) == (bool(field), field)
    assert sum(alteration.family == "metadata" for alteration in found["suite"]) == 4 + num_left


@pytest.mark.parametrize(
    ("options", "unit"), [((), "months"), (("--age-field", "age", "--age-unit", "years"), "years")]
)
def test_on_the_command_line_the_unit_of_the_age_is_named(tmp_path, monkeypatch, options, unit):
    assert told(tmp_path, monkeypatch, *options)["endpoint"].age_unit == unit


def test_years_are_not_stated_in_a_field_of_months(capsys):
    assert main(["stress", "http://127.0.0.1:1", "nowhere", "--age-unit", "years"]) == 2
    assert "--age-unit years needs a field of that unit" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "place"), [((), "intervals.90"), (("--interval", "result.ci90"), "result.ci90")])
def test_on_the_command_line_the_place_of_the_interval_is_named(tmp_path, monkeypatch, options, place):
    assert told(tmp_path, monkeypatch, *options)["endpoint"].interval == place


def test_an_interval_is_read_where_it_is_said_to_stand():
    said = {"result": {"years": 10, "ci90": [9, 11.5]}}
    answer = asked_of(said, answer="result.years", answer_unit="years", interval="result.ci90")
    assert answer == Answer(120.0, (108.0, 138.0))


class Echo(Service):
    """Says how many letters the query has that stated the sex."""

    def answer(self, body):
        return 200, {"bone_age_months": len(self.path.partition("sex=")[2])}


def test_an_unknown_sex_is_said_to_a_service_that_has_a_word_for_it():
    queries = [Query(b"x", "female"), Query(b"x", "male"), Query(b"x")]
    with running(Echo) as url:
        own, other = Endpoint(url=url).ask(queries), Endpoint(url=url, sex_words=("f", "m")).ask(queries)
    assert [answer.months for answer in own] == [len("female"), len("male"), len("unknown")]
    assert [answer.months for answer in other] == [1, 1, 0]


def test_any_http_endpoint_can_be_asked():
    picture = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()
    with running(Theirs) as url:
        endpoint = Endpoint(
            url=f"{url}/predict", form="file", sex_words=("f", "m"), answer="result.years", answer_unit="years"
        )
        answers = endpoint.ask([Query(picture, "male"), Query(picture, "female"), Query(b"", "male")])
    assert [answer.months for answer in answers] == [120, 108, None]
    assert answers[2].reason == "http_400"
    with pytest.raises(SubjectError, match="Nobody answers"):
        endpoint.ask([Query(picture)])


def asked_of(said: dict | bytes, *, status: int = 200, missing: int = 0, **how) -> Answer:
    """The answer to one radiograph of an endpoint that always says the same."""
    service = type("Saying", (Service,), {"answer": lambda self, body: (status, said), "missing": missing})
    with running(service) as url:
        return Endpoint(url=url, **how).ask([Query(b"x", "male")])[0]


DEEP = b"[" * 100_000
ODD = {
    "no JSON": b"<html>",
    "no text": b"\xff\xfe\x00",
    "an empty body": b"",
    "JSON too deep": DEEP,
    "a list": b"[120]",
    "words": {"bone_age_months": "120"},
    "null": {"bone_age_months": None},
    "true": {"bone_age_months": True},
}


@pytest.mark.parametrize("said", ODD.values(), ids=ODD)
def test_a_reply_that_cannot_be_understood_is_a_failure_of_its_request(said):
    assert asked_of(said) == Answer(None, reason="no_answer", is_failure=True)


@pytest.mark.parametrize("ends", [[None, None], [110, None], [110], [True, True], ["110", "130"], [130, 110], 120])
def test_what_is_no_interval_leaves_the_answer_without_one(ends):
    assert asked_of({"bone_age_months": 120, "intervals": {"90": ends}}) == Answer(120.0)


@pytest.mark.parametrize("end", [b"NaN", b"Infinity", b"1" + b"0" * 400, b"1e308"])
def test_an_end_in_months_is_a_finite_number(end):
    said = b'{"bone_age_months": 10, "intervals": {"90": [0, %s]}}' % end
    assert asked_of(said, answer_unit="years") == Answer(120.0)


@pytest.mark.parametrize(
    "value", [b"NaN", b"-Infinity", b"1" + b"0" * 400, b"1" + b"0" * 5000, b"-999", b"-1.1", b"25.1"]
)
def test_a_bone_age_that_is_no_humans_is_a_failure_with_its_own_reason(value):
    said = b'{"bone_age_months": %s}' % value
    assert asked_of(said, answer_unit="years") == Answer(None, reason="impossible_age", is_failure=True)


@pytest.mark.parametrize("value", [-12.0, 0.0, 300.0])
def test_a_bone_age_within_a_systems_error_of_a_humans_is_an_answer(value):
    assert asked_of({"bone_age_months": value}) == Answer(value)


def test_a_reply_that_breaks_off_is_a_failure_of_its_request():
    assert asked_of({"bone_age_months": 120}, missing=9) == Answer(None, reason="no_answer", is_failure=True)


@pytest.mark.parametrize("said", [DEEP, {"code": ["bad"]}, {"code": "\ud800"}, {"code": "x" * 81}])
def test_a_refusal_without_a_code_that_can_be_printed_is_named_by_its_status(said):
    assert asked_of(said, status=422) == Answer(None, reason="http_422")


def test_a_refusal_whose_reason_breaks_off_is_still_a_refusal():
    assert asked_of({"code": "no_hand"}, status=422, missing=9) == Answer(None, reason="http_422")


def test_of_warnings_only_codes_that_can_be_printed_are_kept():
    said = {"bone_age_months": 120, "warnings": [{"code": "sex_unknown"}, {"code": 7}, {}, "x", {"code": "\x1b[2J"}]}
    assert asked_of(said).warnings == ("sex_unknown",)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:abc",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/ä",
        "http://127.0.0.1/\n",
        "http://[::1",
        "http://",
        "ftp://host",
        "http://127.0.0.1/#score",
        "http://me:secret@127.0.0.1",
    ],
)
def test_an_address_that_no_request_can_be_sent_to_is_refused_before_the_cases_are_opened(url, tmp_path, capsys):
    with pytest.raises(SubjectError, match=r"A service's address is .* got ") as refused:
        Endpoint(url=url)
    assert "secret" not in str(refused.value)
    if url.startswith("http"):
        assert main(["stress", url, str(tmp_path / "nowhere")]) == 2
        assert str(refused.value) in capsys.readouterr().err


@pytest.mark.parametrize("end", ["", "/", "?", "?site=3", "/?site=3"])
def test_an_address_without_a_path_is_asked_where_carpal_answers(end):
    class Place(Service):
        def answer(self, body):
            site = parse_qs(urlsplit(self.path).query).get("site", ["0"])[0]
            return (200 if urlsplit(self.path).path == "/v1/score" else 404), {"bone_age_months": float(site)}

    with running(Place) as url:
        (answer,) = Endpoint(url=url + end).ask([Query(b"x", "male")])
    assert answer.months == (3 if "site" in end else 0)

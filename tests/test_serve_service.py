"""The whole service for real: Ray, Serve, a genuine bundle, `python -m serve` in a process of its own."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx2
import numpy as np
import psutil
import pytest

from benchmarks.sample import publish_sample
from benchmarks.service import ROOT, Running, running_service
from serve import ask
from serve.metrics import STAGES
from tests.dicom_files import BIRTH, NAME, PATIENT, dicom
from tests.hostile_uploads import PNG, SCORE, UPLOADS, Upload
from tests.test_serve_gateway import check

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    publish_sample(folder)
    return folder


@pytest.fixture(scope="module")
def service(sample: Path) -> Iterator[Running]:
    with running_service(sample / "registry") as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=service.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("upload", UPLOADS, ids=lambda upload: upload.name)
def test_hostile_upload_gets_a_problem_and_a_strange_one_its_reading(client: httpx2.Client, upload: Upload) -> None:
    answer = client.request(upload.method, upload.path, headers=upload.headers, content=upload.content)
    check(answer, upload)
    assert len(answer.headers.get_list("x-request-id")) == 1


def test_file_gives_the_same_months_over_http_from_the_predictor_and_from_the_cohort(
    client: httpx2.Client, sample: Path
) -> None:
    from ensemble.predictor import Predictor
    from ensemble.registry import Registry
    from preprocessing.cohort import Cohort

    predictor = Predictor(Registry(sample / "registry").resolve("champion"))
    cohort = Cohort.load(sample / "cohort")
    for row in cohort.test_rows():
        case = cohort.cases.iloc[row]
        data = (Path(cohort.source) / case["file"]).read_bytes()
        answer = client.post("/v1/score", params={"sex": case["sex"]}, content=data).json()
        alone = predictor.score(data, case["sex"])
        prepared = predictor.predict(cohort.pixels[row][None], np.array([case["is_male"]]))[0]
        assert answer["bone_age_months"] == pytest.approx(alone.bone_age_months, abs=0.01)
        assert answer["bone_age_months"] == pytest.approx(prepared.bone_age_months, abs=0.01)
        assert answer["distribution"] == pytest.approx(alone.distribution.tolist(), abs=1e-4)
        assert (answer["version"], answer["recipe"]) == (predictor.bundle.version, cohort.recipe.hash)


def test_a_dicom_that_contradicts_the_sex_given_is_answered_with_a_warning(client: httpx2.Client) -> None:
    data = dicom(np.random.default_rng(1).integers(0, 256, (90, 70)).astype(np.uint8))
    told = {sex: client.post("/v1/score", params={"sex": sex}, content=data).json()["warnings"] for sex in ("m", "f")}
    (warning,) = [item for item in told["m"] if item["code"] == "contradiction"]
    assert warning["message"] == "The sex given is male, the DICOM header says female."
    assert not [item for item in told["f"] if item["code"] == "contradiction"]


def test_an_unknown_sex_has_both_answers_and_one_heat_map_that_lies_on_the_picture(client: httpx2.Client) -> None:
    answer = client.post("/v1/score?sex=unknown&explain=true", content=PNG).json()
    assert set(answer["by_sex"]) == {"female", "male"}
    about = answer["heatmap"]
    rgba = cv2.imdecode(np.frombuffer(client.get(about["href"]).content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert rgba.shape == (about["side"], about["side"], 4)
    assert about["picture"] == {"width": 120, "height": 160}
    a, b, c, d, e, f = about["matrix"]
    middle = about["side"] / 2
    assert (a * middle + c * middle + e, b * middle + d * middle + f) == pytest.approx((60, 80), abs=1)


def test_a_profile_that_the_bundle_lacks_is_refused_and_one_that_it_has_answers(client: httpx2.Client) -> None:
    answer = client.post(f"{SCORE}&profile=fast&chronological_age_months=90", content=PNG)
    if answer.status_code == 422:
        assert answer.json()["code"] == "profile_unavailable"
    else:
        assert (answer.json()["profile"], answer.json()["chronology"]["chronological_age_months"]) == ("fast", 90.0)


def test_many_at_once_get_the_same_reading_as_one_alone(client: httpx2.Client) -> None:
    alone = client.post(SCORE, content=PNG).json()["bone_age_months"]
    readings: list[float] = []

    def ask_once() -> None:
        while (answer := client.post(SCORE, content=PNG)).status_code == 503:
            time.sleep(0.2)  # a slow machine has no place for so many, and says to ask again
        readings.append(answer.json()["bone_age_months"])

    threads = [threading.Thread(target=ask_once) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert readings == pytest.approx([alone] * 40, abs=0.01)


def test_header_that_is_no_utf_8_does_not_fail_in_the_proxy(service: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    for name in ("X-Request-ID", "X-Session-ID", "serve_multiplexed_model_id", "x-request-timeout-seconds"):
        connection.request("POST", SCORE, PNG, {name: b"\xff\xfe"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, name


def test_length_that_lies_is_an_error_not_a_hang(service: Running) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(b"POST /v1/score?sex=male HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nshort")
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)  # nothing or a refusal: the service lives on, which the next line shows
    assert httpx2.get(f"{service.url}/healthz", trust_env=False).status_code == 200


def test_a_page_whose_name_was_made_to_lead_here_is_refused(client: httpx2.Client) -> None:
    for method, path in (("GET", "/"), ("GET", "/v1/versions"), ("POST", SCORE)):
        answer = client.request(method, path, headers={"host": "elsewhere.example:8000"}, content=PNG)
        assert (answer.status_code, answer.json()["code"]) == (421, "foreign_host")


def test_version_and_readiness_name_the_bundle(client: httpx2.Client) -> None:
    listed = client.get("/v1/versions").json()["versions"]
    assert [version["aliases"] for version in listed] == [["champion"]]
    ready = client.get("/readyz").json()
    assert (ready["version"], ready["ledger"]["status"]) == (listed[0]["version"], "up")


def test_asking_about_a_cohort_shows_the_truth_beside_the_answer(
    service: Running, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answer.json"
    assert ask.main([service.url, "--cohort", str(sample / "cohort"), "--wait", "60", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert set(record) == {"case_id", "sex", "bone_age_months_true", "file", "image_png_base64", "answer"}
    assert f"{record['bone_age_months_true']:.1f} months" in capsys.readouterr().out


def test_taken_port_is_refused_in_a_sentence(service: Running, sample: Path) -> None:
    told = _serve(str(sample / "registry"), "--open", "--port", str(service.port))
    assert told.returncode == 2
    assert "it is taken" in told.stderr


def test_unknown_version_is_refused_in_a_sentence(sample: Path) -> None:
    told = _serve(str(sample / "registry"), "--version", "ens-000000000000")
    assert told.returncode == 2
    assert told.stderr.startswith("serve: ")


def test_missing_registry_is_refused_in_a_sentence(tmp_path: Path) -> None:
    told = _serve(str(tmp_path / "nothing"))
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1


def test_the_metrics_have_every_stage_of_a_real_answer_and_the_evidence_of_the_bundle(client: httpx2.Client) -> None:
    assert client.post(SCORE, content=PNG).status_code == 200
    text = client.get("/metrics").text
    spent = {
        stage: float(seconds)
        for stage, seconds in re.findall(r'carpal_stage_seconds_sum\{.*stage="(\w+)".*\} (\S+)', text)
    }
    assert set(spent) | {"explain"} == set(STAGES)  # which only an answer with a heat map has
    assert min(spent.values()) > 0
    parts = sum(spent[stage] for stage in set(spent) - {"score", "record"})
    assert parts == pytest.approx(spent["score"], rel=1e-6)
    for monitor in ("bone_age_months", "interval_months", "sex", "brightness", "outcome"):
        counted = re.findall(rf'carpal_drift_cases_total\{{.*monitor="{monitor}".*\}} (\S+)', text)
        assert sum(map(float, counted)) > 0, monitor
    assert "carpal_gateways_silent 0.0" in text


def test_a_request_is_in_the_log_of_every_process_by_its_id_and_nothing_about_a_person_is_in_any(
    service: Running, client: httpx2.Client
) -> None:
    file = dicom(np.random.default_rng(1).integers(0, 256, (90, 70)).astype(np.uint8))
    params, headers = {"sex": "f", "subject": NAME}, {"x-request-id": "ris-4711", "referer": f"https://ris/{NAME}"}
    assert client.post("/v1/score", params=params, content=file, headers=headers).status_code == 200
    for body in (file[:-300], file[:700], NAME.encode() * 50):
        client.post("/v1/score", params=params, files={"file": (f"{NAME}.dcm", body)}, headers={"x-patient": PATIENT})
        client.post(f"/v1/{NAME}", content=body, headers={"x-request-id": NAME})
    family = psutil.Process(service.process.pid).children(recursive=True)
    told: list[str] = []
    for process in family:
        with contextlib.suppress(psutil.Error):  # some only help for a moment
            told += process.cmdline()
    (session,) = set(re.findall(r"/tmp/ray/session_[\w-]+", "\n".join(told)))
    with_id: set[str] = set()
    end = time.monotonic() + 20
    while with_id != {"gateway", "preprocess", "ensemble"} and time.monotonic() < end:
        texts = {path: path.read_text(errors="replace") for path in Path(session, "logs").rglob("*") if path.is_file()}
        lines = [line for text in texts.values() for line in text.splitlines() if "ris-4711" in line]
        with_id = {json.loads(line)["component"] for line in lines}
        time.sleep(0.2)
    assert with_id == {"gateway", "preprocess", "ensemble"}
    marks = (*NAME.split("^"), PATIENT, BIRTH)
    assert [(path.name, mark) for path, text in texts.items() for mark in marks if mark in text] == []


def test_a_plain_service_answers_by_serves_own_proxy(sample: Path) -> None:
    with running_service(sample / "registry", "--plain") as plain:
        assert httpx2.post(f"{plain.url}{SCORE}", content=PNG, timeout=60, trust_env=False).status_code == 200
        family = [" ".join(each.cmdline()) for each in psutil.Process(plain.process.pid).children(recursive=True)]
        assert not [line for line in family if "haproxy" in line]


def test_sigterm_ends_it_with_0_and_leaves_no_process(
    service: Running,
) -> None:  # the last test: it stops the service
    family = psutil.Process(service.process.pid).children(recursive=True)
    assert len(family) > 5
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
    _, alive = psutil.wait_procs(family, 10)
    assert alive == []


def _serve(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "serve", *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=120)

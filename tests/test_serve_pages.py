"""The pages as the service renders them, without a browser."""

import re
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from serve import limits, pages
from serve.confidence import Interval
from serve.experiment_course import course
from serve.page_experiment import draw as draw_course
from serve.page_picture import LONG_SIDE, Picture, picture
from serve.page_reading import WIDTH, draw
from serve.pages import STATIC
from serve.readings import Units
from tests.hostile_uploads import DICOM, PNG, SCORE, hand_png
from tests.page_fixtures import A, B, Site

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    site = Site(tmp_path)
    with TestClient(site.app, raise_server_exceptions=False) as client:
        yield client
    site.books.close()


def read(client: TestClient, data: bytes = PNG, **fields: str) -> Any:
    return client.post("/page/reading", files={"file": ("x", data)}, data={"sex": "male", **fields})


class _Page(HTMLParser):
    """What an element asks for from elsewhere, and what the security policy would not let run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)


@pytest.mark.parametrize("path", ["/", "/experiments", "/docs"])
def test_a_page_asks_for_nothing_but_this_service_and_runs_nothing_inline(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = _Page(answer.text)
    assert not page.inline
    for address in page.addresses:
        assert address.startswith(("/", "#")), address
        assert address.startswith("#") or client.get(address).status_code == 200, address


def test_a_stylesheet_and_a_script_name_no_other_host(client: TestClient) -> None:
    for name, path in STATIC.items():
        assert client.get(f"/static/{name}").content == path.read_bytes()
        assert not re.search(r"https?://(?!www\.w3\.org)", path.read_text()), name


@pytest.mark.parametrize("name", ["../pages.py", "%2e%2e%2fpages.py", "x", ""])
def test_only_the_pages_files_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").json()["code"] == "not_found"


def test_a_reading_says_number_interval_warning_and_version(client: TestClient) -> None:
    text = read(client).text
    for words in ("10 years 6 months", "9 years 4 months to 11 years 8 months", "1 warning", A):
        assert words in text
    assert "&lt;a frame&gt;" in text  # escaped
    assert not _Page(text).inline


def test_a_reading_names_bundle_recipe_cohort_and_image_by_hash(client: TestClient) -> None:
    text = read(client).text
    hashes = {"Bundle": "1" * 64, "Recipe": "0" * 64, "Cohort": "2" * 64, "Image": sha256(PNG).hexdigest()}
    for name, value in hashes.items():
        assert f"<dt>{name}</dt><dd><code>{value}</code></dd>" in text


def test_a_reading_beside_the_chronological_age(client: TestClient) -> None:
    text = read(client, chronological_age_months="91").text
    assert "2 years 11 months ahead" in text
    assert "+3.2 standard deviations" in text


def test_an_unknown_sex_shows_both_answers(client: TestClient) -> None:
    text = client.post("/page/reading", files={"file": ("x", PNG)}, data={"sex": "unknown"}).text
    assert re.search(r"female</th><td>10 years<", text)
    assert re.search(r">male</th><td>11 years<", text)


def test_a_heat_map_lies_over_the_radiograph_where_it_was_asked_for(client: TestClient) -> None:
    text = read(client, explain="true").text
    assert 'transform="matrix(1.0 0.0 0.0 1.0 8.0 16.0)"' in text
    assert all(words in text for words in ('viewBox="0 0 120 160"', 'type="range"', "+1.25", "−1.25"))
    assert "heat" not in read(client).text


def test_a_reading_on_the_page_is_one_in_the_ledger(client: TestClient) -> None:
    prediction = re.search(r'data-prediction="(\w+)"', read(client).text)
    assert prediction
    found = client.get(f"/v1/predictions/{prediction[1]}").json()
    assert (found["sex"], found["answer"]["version"]) == ("male", A)


def test_a_refusal_on_the_page_is_the_problem_that_programs_get(client: TestClient) -> None:
    assert client.post("/page/reading?sex=male", content=b"").json()["code"] == "empty"
    assert read(client, sex="x").json()["code"] == "sex_unknown_word"


def test_a_reading_holds_its_place_until_it_is_drawn(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_IN_FLIGHT", 1)
    refused = []

    def drawn(data: bytes) -> Picture:
        refused.append(client.post(SCORE, content=PNG).json()["code"])
        return picture(data)

    monkeypatch.setattr(pages, "picture", drawn)
    assert read(client).status_code == 200
    assert refused == ["overloaded"]
    assert client.post(SCORE, content=PNG).status_code == 200


@pytest.mark.parametrize("data", [PNG, DICOM])
def test_every_format_is_shown(data: bytes) -> None:
    shown = picture(data)
    assert shown.png.startswith(b"\x89PNG")
    assert (shown.width, shown.height) == (shown.full_width, shown.full_height) == (120, 160)


def test_a_large_radiograph_is_shown_smaller_and_keeps_its_shape() -> None:
    shown = picture(hand_png(2400, 1800, depth=16))
    assert (shown.height, shown.width, shown.full_height) == (LONG_SIDE, 900, 2400)


@pytest.mark.parametrize("months", [0.0, 5.0, 126.0, 239.0])
@pytest.mark.parametrize("chronological", [None, 0.0, 240.0])
def test_a_distribution_is_drawn_within_its_frame(months: float, chronological: float | None) -> None:
    share = np.exp(-0.5 * ((np.arange(240) - months) / 6) ** 2)
    drawing = draw(list(share / share.sum()), months, [months - 10, months + 10], chronological)
    assert drawing.interval
    ends = [drawing.answer_x, *drawing.interval, *([drawing.chronological_x] if chronological is not None else [])]
    assert all(0 <= x <= WIDTH for x in ends)
    assert len(drawing.ticks) >= 2
    assert "nan" not in drawing.outline


def test_a_course_ends_where_the_report_does() -> None:
    rng = np.random.default_rng(0)
    reference = rng.uniform(20, 220, 300)
    units = Units(
        reference,
        reference + rng.normal(0, 8, 300),
        reference + rng.normal(0, 4, 300),
        np.zeros(300, bool),
        np.ones(300),
        np.full(300, "male"),
    )
    looks = course(units, is_shadow=True, alpha=0.05)
    assert [look.n for look in looks] == sorted({look.n for look in looks})
    assert (looks[0].n, looks[-1].n) == (1, 300)
    assert looks[-1].lower > 0
    drawn = draw_course(looks)
    assert drawn.is_cut  # the first interval reaches a year either way
    assert "nan" not in drawn.band + drawn.line


def test_a_course_of_equal_answers_can_be_drawn() -> None:
    drawn = draw_course([Interval(0.0, -12.0, 12.0, 1), Interval(0.0, -3.0, 3.0, 2)])
    assert drawn.zero_y == pytest.approx((drawn.head + drawn.height - drawn.foot) / 2)


def test_experiments_are_shown_from_their_start_to_their_rollback(client: TestClient) -> None:
    def shown(**query: str) -> str:
        answer = client.get("/page/experiments", params=query)
        assert answer.status_code == 200, answer.text
        assert not _Page(answer.text).inline
        return answer.text

    assert "Start an experiment" in shown()
    client.post("/v1/experiments", json={"name": "e", "challenger": B, "mode": "split"})
    text = shown()
    assert "Start an experiment" not in text
    assert all(words in text for words in ("Go on", "50 %".replace(" ", "\N{NO-BREAK SPACE}"), 'data-act="promote"', B))
    client.post("/v1/experiments/e/promote")
    assert "Take the promotion back" in shown(name="e")
    client.post("/v1/experiments/e/rollback")
    text = shown(name="e")
    assert "rolled back" in text
    assert "data-act" not in text
    assert client.get("/page/experiments?name=none").json()["code"] == "experiment_unknown"
    assert client.get("/page/experiments?name=%00").json()["code"] == "experiment_unknown"


def test_a_key_that_may_read_sees_no_act(tmp_path: Path) -> None:
    site = Site(tmp_path, is_open=False)
    reader, admin = (site.keys.add(role, [role]) for role in ("read", "admin"))
    site.books.refresh()
    with TestClient(site.app) as client:
        assert 'id="key"' in client.get("/").text
        assert client.get("/page/experiments").json()["code"] == "key_missing"
        assert "may look" not in (text := _part(client, admin))
        assert "Start an experiment" in text
        assert "Start an experiment" not in _part(client, reader)
        headers = {"authorization": f"Bearer {reader}"}
        assert client.post("/page/reading", content=b"", headers=headers).json()["code"] == "role_missing"
    site.books.close()


def _part(client: TestClient, key: str) -> str:
    return client.get("/page/experiments", headers={"authorization": f"Bearer {key}"}).text


def test_templates_and_scripts_travel_with_the_package() -> None:
    said = (ROOT / "pyproject.toml").read_text()
    assert 'serve = ["templates/*.html", "static/*"]' in said

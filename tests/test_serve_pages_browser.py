"""The pages in headless Chromium, with the keyboard: what a person does, and what the browser complains about."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.sample import publish_challenger, publish_sample
from benchmarks.service import running_service
from ensemble.registry import Registry
from tests.hostile_uploads import DICOM, PNG
from tests.page_fixtures import A, B, Site, listening

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const one of document.querySelectorAll("main *, header *")) {
    const says = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!says || one.closest("svg, .unseen, [hidden], noscript, script") || !one.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${one.tagName} ${one.textContent.trim().slice(0, 30)}`);
  }
  return found;
}"""
"""Texts whose contrast is below that of WCAG 2.2 AA (4.5 to 1)."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    expect.set_options(timeout=30_000)  # a page's own time-out does not concern it
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must cause no complaint of the browser and ask for nothing elsewhere."""
    # without transitions: colours half-way have no contrast worth knowing
    page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page.set_default_timeout(30_000)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    assert not [line for line in said if "status of 4" not in line]  # a refusal is told to the person
    assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in asked)


def test_a_person_reads_a_bone_age_with_the_keyboard(page: Page, tmp_path: Path) -> None:
    with listening(Site(tmp_path)) as url:
        page.goto(url)
        page.get_by_label("Choose a radiograph").set_input_files(
            {"name": "Doe^Jane.dcm", "mimeType": "application/dicom", "buffer": DICOM}
        )
        page.get_by_role("button", name="Read the bone age").press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Say the sex")
        page.keyboard.press("ArrowRight")  # the focus went to the sex
        page.get_by_label("years", exact=True).first.fill("7")
        page.get_by_label("years", exact=True).first.press("Enter")
        result = page.get_by_role("region", name="Reading")
        expect(result).to_contain_text("10 years 6 months")
        expect(result).to_be_focused()
        assert page.evaluate(CONTRAST) == []
        heat = page.get_by_role("slider", name="Heat map")
        heat.focus()
        page.keyboard.press("Home")
        assert page.locator(".map").get_attribute("opacity") == "0"
        own = page.get_by_role("group", name="Your own reading")
        own.get_by_label("years").fill("10")
        own.get_by_role("button", name="Record").press("Enter")
        expect(own.get_by_role("status")).to_contain_text("Recorded: 120 months")
        page.get_by_role("button", name="Dark").press("Enter")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 30)"
        assert page.evaluate(CONTRAST) == []


def drop(page: Page, *names: str) -> None:
    """Let go of files over the page."""
    made = page.evaluate_handle(
        """([names, bytes]) => {
          const held = new DataTransfer();
          for (const name of names) held.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
          return held;
        }""",
        [names, list(PNG)],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#viewer", event, {"dataTransfer": made})


def test_a_radiograph_that_is_dropped_is_read(page: Page, tmp_path: Path) -> None:
    with listening(Site(tmp_path)) as url:
        page.goto(url)
        drop(page, "a.png")
        expect(page.get_by_alt_text("The radiograph, not read yet")).to_be_visible()
        expect(page.locator("#viewer.over")).to_have_count(0)  # the frame that showed where it would fall
        page.get_by_role("radio", name="Female").check()
        page.get_by_role("button", name="Read the bone age").click()
        expect(page.locator(".big")).to_contain_text("10 years 6 months")


def test_of_two_radiographs_that_are_dropped_none_is_taken(page: Page, tmp_path: Path) -> None:
    with listening(Site(tmp_path)) as url:
        page.goto(url)
        drop(page, "a.png", "b.png")
        expect(page.get_by_role("alert")).to_contain_text("One radiograph at a time")
        expect(page.locator("#viewer img")).to_have_count(0)


def test_a_reading_goes_when_another_radiograph_comes(page: Page, tmp_path: Path) -> None:
    with listening(Site(tmp_path)) as url:
        page.goto(url)
        file = page.locator("#file")
        file.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": PNG})
        page.get_by_role("radio", name="Female").check()
        page.get_by_role("button", name="Read the bone age").click()
        expect(page.locator(".big")).to_be_visible()
        file.set_input_files({"name": "b.png", "mimeType": "image/png", "buffer": PNG[:-1] + b"x"})
        expect(page.locator(".big")).to_have_count(0)


def test_a_key_is_asked_for_and_kept_nowhere(page: Page, tmp_path: Path) -> None:
    site = Site(tmp_path, is_open=False)
    key = site.keys.add("reader", ["score"])
    site.books.refresh()
    with listening(site) as url:
        page.goto(url)
        page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": PNG})
        page.get_by_role("radio", name="Male", exact=True).check()
        send = page.get_by_role("button", name="Read the bone age")
        send.click()
        expect(page.get_by_role("alert")).to_contain_text("A key is needed")
        page.locator("#key").fill(key)
        send.click()
        expect(page.locator(".big")).to_be_visible()
        kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state])"
        assert key not in page.evaluate(kept)
        page.reload()
        assert page.locator("#key").input_value() == ""


def test_an_experiment_is_started_promoted_and_taken_back_on_the_page(page: Page, tmp_path: Path) -> None:
    site = Site(tmp_path, is_open=False)
    admin = site.keys.add("admin", ["admin"])
    site.books.refresh()
    with listening(site) as url:
        page.goto(f"{url}/experiments")
        page.locator("#key").fill(admin)
        page.locator("#key").press("Enter")
        page.get_by_label("Name").fill("new-heads")
        page.get_by_label("Challenger").fill(B)
        page.get_by_label("Mode").select_option("split")
        page.get_by_role("button", name="Start").press("Enter")
        expect(page.get_by_role("heading", name="new-heads")).to_be_visible()
        assert page.evaluate(CONTRAST) == []
        page.get_by_label("Share of the challenger").fill("20")
        page.get_by_role("button", name="Set").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("20 %")
        page.get_by_role("button", name="Promote").press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text(f"{B} becomes the champion")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert site.books.state.champion == A
        page.get_by_role("button", name="Promote").press("Enter")
        page.get_by_role("dialog").get_by_role("button", name="Promote").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Promoted")
        assert site.books.state.champion == B
        page.get_by_role("button", name="Take the promotion back").press("Enter")
        page.get_by_role("button", name="Take it back").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Rolled back")
        assert site.books.state.champion == A


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_person_walks_through_a_real_service(page: Page, tmp_path: Path) -> None:
    publish_sample(tmp_path)
    champion, challenger = Registry(tmp_path / "registry").version_of("champion"), publish_challenger(tmp_path)
    hand = next((tmp_path / "hands").glob("*/*.png"))

    def read(url: str, version: str) -> None:
        """On the page of readings, again until this version has read it."""
        page.goto(url)
        page.get_by_label("Choose a radiograph").set_input_files(hand)
        page.get_by_role("radio", name="Female").check()
        result = page.get_by_role("region", name="Reading")
        for _ in range(30):
            page.get_by_role("button", name="Read the bone age").click()
            expect(page.locator("#status")).to_have_text("Read.")
            if version in result.inner_text():
                break
        expect(result).to_contain_text(version)
        expect(page.locator(".big")).to_contain_text("month")

    with running_service(tmp_path / "registry", start_within_s=400) as service:
        read(service.url, champion)
        page.goto(f"{service.url}/experiments")
        page.get_by_label("Name").fill("walk")
        page.get_by_label("Challenger").fill(challenger)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("heading", name="walk")).to_be_visible()
        read(service.url, champion)
        page.goto(f"{service.url}/experiments")
        page.get_by_role("button", name="Promote").click()
        page.get_by_role("dialog").get_by_role("button", name="Promote").click()
        expect(page.get_by_role("status")).to_contain_text("Promoted")
        read(service.url, challenger)
        page.goto(f"{service.url}/experiments")
        page.get_by_role("button", name="walk").click()  # among those before
        page.get_by_role("button", name="Take the promotion back").click()
        page.get_by_role("button", name="Take it back").click()
        expect(page.get_by_role("status")).to_contain_text("Rolled back")
        read(service.url, champion)


def test_the_contract_can_be_read(page: Page, tmp_path: Path) -> None:
    with listening(Site(tmp_path)) as url:
        page.goto(f"{url}/docs")
        page.get_by_role("link", name="POST /v1/score", exact=True).click()
        expect(page.locator("#score")).to_be_in_viewport()
        assert page.evaluate(CONTRAST) == []

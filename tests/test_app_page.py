"""The page of `electra app` in Chromium, used as a person would: typing, sliders, edits, links, mistakes.

ELECTRA_SCREENSHOTS names a folder for pictures of what was seen.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from app_models import free_port, make_models

from electra.app.detector_tab import TEXTS

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("there is no chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")
gradio = pytest.importorskip("gradio")

from playwright.sync_api import Browser, Page, expect  # noqa: E402

from electra.app.models import open_tabs  # noqa: E402
from electra.app.page import build_page  # noqa: E402
from electra.app.serve import start_page  # noqa: E402

FLAGS = [
    f"--{flag}"
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync"),
    )
]
PASSAGE = "the film was dull. the music was not dull, but the actors and the film was great"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = make_models(tmp_path_factory.mktemp("models"))
    page = build_page(open_tabs([str(path) for path in models.values()], "cpu"))
    yield start_page(page, "127.0.0.1", free_port())
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


class Visit:
    """One visitor's window."""

    def __init__(self, browser: Browser, address: str, query: str = "", **options: Any) -> None:
        self.page: Page = browser.new_page(**options)
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.go(address + query)

    def go(self, address: str) -> None:
        self.page.goto(address)
        expect(self.page.get_by_role("tab").first).to_be_visible(timeout=20_000)

    def box(self, name: str):
        """The text box or number of a field."""
        return self.page.locator(f"#{name} textarea, #{name} input").first

    def shown(self, name: str):
        return self.page.locator(f"#{name}")

    def open(self, tab: str) -> None:
        self.page.get_by_role("tab", name=tab, exact=True).click()

    def link(self, tab: str, ends: str | re.Pattern) -> str:
        box = self.page.locator(f"#{tab}-link textarea, #{tab}-link input")
        expect(box).to_have_value(ends if isinstance(ends, re.Pattern) else re.compile(re.escape(ends) + "$"))
        return box.input_value()

    def picture(self, name: str) -> None:
        if folder := os.environ.get("ELECTRA_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    visit = Visit(browser, address)
    expect(visit.shown("run-replaced").get_by_role("listitem").first).to_be_visible(timeout=20_000)
    yield visit
    assert visit.faults == []


def test_the_page_opens_with_an_example_and_asks_nobody_else(visit: Visit, address: str) -> None:
    expect(visit.shown("run-replaced")).to_contain_text("replaced")
    expect(visit.box("run-text")).to_have_value(TEXTS[0])
    assert visit.page.title() == "run, mood, pair, topics, stars, names, words, qa, joint"
    assert visit.requests and all(url.startswith((address, "data:", "blob:")) for url in visit.requests)
    expect(visit.page.locator("footer")).to_be_hidden()
    visit.picture("replaced-light")


def test_editing_a_word_moves_the_others(visit: Visit, browser: Browser, address: str) -> None:
    text = "The chef cooked the film and served it to the guests at noon."
    moves = visit.shown("run-judged").locator(".above")
    expect(moves.first).to_be_attached()
    expect(moves.get_by_text(re.compile("new|▲|▼"))).to_have_count(0)
    visit.box("run-edited").fill(text)
    expect(moves.get_by_text("new").first).to_be_visible()
    expect(moves.get_by_text(re.compile("▲|▼")).first).to_be_visible()
    link = visit.link("run", re.compile("edited="))
    visit.picture("edited-light")

    other = Visit(browser, address, link[len(address) :], color_scheme="dark", viewport={"width": 390, "height": 800})
    expect(other.box("run-edited")).to_have_value(text)
    expect(other.shown("run-judged").locator(".above").get_by_text("new").first).to_be_visible()
    assert other.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 31)"
    assert other.page.evaluate("document.documentElement.scrollWidth") <= 390
    other.picture("edited-dark-phone")
    other.page.close()

    visit.box("run-edited").press("ControlOrMeta+a")
    visit.box("run-edited").press("Backspace")  # which is no key for a letter
    expect(moves).to_have_count(0)


def test_replacing_tokens(visit: Visit, browser: Browser, address: str) -> None:
    tokens = visit.shown("run-replaced").get_by_role("listitem")
    visit.box("run-text").fill("the film is a very good film with great music and the actors are bright")
    visit.page.get_by_role("button", name="Replace").click()
    expect(tokens).to_have_count(15)
    expect(tokens.first).to_contain_text(re.compile(r"\d+%"))
    link = visit.link("run", re.compile("text=the"))
    assert visit.page.url == link

    first = visit.shown("run-replaced").inner_text()
    visit.page.get_by_role("button", name="Draw others").click()
    expect(visit.box("run-seed")).to_have_value("1")
    expect(visit.shown("run-replaced")).not_to_have_text(first, use_inner_text=True)
    slider = visit.page.locator("#run-share input[type=range]")
    slider.focus()
    for _ in range(7):
        slider.press("ArrowRight")
    headline = visit.shown("run-replaced").locator(".headline")
    expect(headline).to_contain_text(re.compile("[4-9] tokens of 15 replaced"))
    link = visit.link("run", re.compile("share=0.5&seed=1$"))
    visit.picture("half-replaced")

    other = Visit(browser, address, link[len(address) :])
    expect(other.shown("run-replaced").locator(".headline")).to_have_text(headline.inner_text())
    assert other.shown("run-replaced").inner_text() == visit.shown("run-replaced").inner_text()
    expect(other.box("run-seed")).to_have_value("1")
    other.page.close()


def test_an_example_is_one_click_away(visit: Visit) -> None:
    visit.page.get_by_role("button", name=TEXTS[1]).click()
    expect(visit.box("run-text")).to_have_value(TEXTS[1])
    expect(visit.shown("run-replaced").get_by_role("listitem")).to_have_count(11)
    visit.link("run", re.compile("text=In\\+1912"))


def test_what_is_no_text_gets_a_sentence(visit: Visit) -> None:
    for text, sentence in (
        ("", "there is no text yet: type one"),
        ("a" * 100_000, "100,000 characters are too many: shorten it to 5,000"),
        ("🙂🎉🚀", "the model's vocabulary knows nothing in it"),
    ):
        visit.open("run")
        visit.box("run-text").fill(text)
        visit.page.get_by_role("button", name="Replace").click()
        expect(visit.shown("run-replaced").get_by_role("alert")).to_contain_text(sentence)
        visit.picture(f"mistake-{len(text)}")
        if text:
            visit.box("run-edited").fill(text)
            expect(visit.shown("run-judged").get_by_role("alert")).to_contain_text(sentence)
        visit.open("mood")
        visit.box("mood-text").fill(text)
        visit.page.locator("#mood-answer").click()
        expect(visit.shown("mood-shown").get_by_role("alert")).to_contain_text(sentence)


def test_labels_values_and_tags(visit: Visit) -> None:
    for tab, texts, wanted in (
        ("mood", {"text": "the film is good"}, r"(sad|plain|glad) \d"),
        ("pair", {"text": "the film", "text2": "a plot"}, r"(same|differs) \d"),
        ("topics", {"text": "the film is good"}, "Each label has a probability of its own"),
        ("stars", {"text": "the film is good"}, r"-?\d"),
        ("names", {"text": "the film is good and the music with actors was great"}, "entit"),
        ("words", {"text": "the film is good"}, "NOUN|VERB"),
    ):
        visit.open(tab)
        for name, text in texts.items():
            visit.box(f"{tab}-{name}").fill(text)
        visit.page.locator(f"#{tab}-answer").click()
        expect(visit.shown(f"{tab}-shown")).to_contain_text(re.compile(wanted))
        visit.link(tab, re.compile(f"tab={tab}&text=the"))
        visit.picture(tab)


def test_questions(visit: Visit, browser: Browser, address: str) -> None:
    for tab in ("qa", "joint"):
        visit.open(tab)
        visit.box(f"{tab}-passage").fill(PASSAGE)
        visit.box(f"{tab}-threshold").fill("1000")
        visit.box(f"{tab}-question").fill("was the film good")
        visit.box(f"{tab}-question").press("Enter")
        shown = visit.shown(f"{tab}-shown")
        expect(shown).to_contain_text("not above the threshold of 1000.00")
        expect(shown.locator("mark")).to_have_text(shown.locator(".headline b").inner_text())
        visit.picture(tab)
        visit.box(f"{tab}-threshold").fill("-1000")
        visit.page.locator(f"#{tab}-answer").click()
        expect(shown.locator(".headline")).to_contain_text("No answer")
    link = visit.link("joint", re.compile("threshold=-1000"))
    other = Visit(browser, address, link[len(address) :], color_scheme="dark")
    expect(other.shown("joint-shown")).to_contain_text("No answer")
    expect(other.page.get_by_role("tab", name="joint")).to_have_attribute("aria-selected", "true")
    expect(other.box("joint-passage")).to_have_value(PASSAGE)
    other.picture("joint-dark")
    other.page.close()


def test_two_visitors_do_not_meet(visit: Visit, browser: Browser, address: str) -> None:
    other = Visit(browser, address, "?tab=run&text=the+film")
    other.link("run", "text=the+film")
    visit.open("run")
    for each, word in ((visit, "good"), (other, "dull")):
        each.box("run-text").fill(f"the film is {word}")
    for each in (visit, other):
        each.page.get_by_role("button", name="Replace").click()
    for each, word in ((visit, "good"), (other, "dull")):
        each.link("run", re.compile(rf"text=the\+film\+is\+{word}"))
    other.page.close()


def test_bad_links_get_a_sentence(visit: Visit, address: str) -> None:
    for query, sentence in (
        ("?tab=run&text=the+film&share=2", "Share of tokens replaced: give a number from 0.05 to 0.5."),
        ("?tab=elsewhere&text=x", "which this page does not have"),
        ("?text=" + "a" * 9_000, "The link is longer than 8,000 characters"),
        ("?tab=mood&text=%F0%9F%99%82", "knows nothing in it"),
    ):
        visit.go(address + query)
        expect(visit.page.get_by_role("alert").first).to_contain_text(sentence)

"""The page in headless Chromium: paints while one types, enlarges, downloads; by keyboard, on a phone, in Chinese."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_kit import Running, configured, make_zoo, opened, picture_file, serving

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")


CHROMIUM = os.environ.get("LIMNER_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (or name it in LIMNER_CHROMIUM)"),
]
expect = playwright.expect


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("zoo")
    feedback = {"url": f"sqlite:///{folder / 'ratings.db'}"}
    with serving(configured(make_zoo(folder), page=True, feedback=feedback)) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Any, running: Running) -> Iterator[Any]:
    """The page, ready, in English; faults that the browser logs (also those of the policy) fail the test."""
    yield from visiting(browser, running, viewport=DESKTOP)


@pytest.fixture
def phone(browser: Any, running: Running) -> Iterator[Any]:
    yield from visiting(browser, running, viewport=PHONE, has_touch=True, is_mobile=True)


def visiting(browser: Any, running: Running, **how: Any) -> Iterator[Any]:
    context = browser.new_context(locale="en-GB", accept_downloads=True, **how)
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.goto(running.url)
    expect(page.locator("#pictures img")).to_have_count(4)
    yield page
    context.close()
    assert faults == []


def seeds(page: Any) -> list[str]:
    return page.locator("#pictures .seed").all_text_contents()


def sources(page: Any) -> list[str]:
    return page.locator("#pictures img").evaluate_all("all => all.map((each) => each.src)")


def test_it_paints_as_one_types(tab: Any) -> None:
    before, first = sources(tab), seeds(tab)
    tab.locator("#prompt").fill("")
    expect(tab.locator("#pictures .blank")).to_have_count(4)
    tab.locator("#prompt").press_sequentially("a blue cat", delay=15)
    expect(tab.locator("#pictures img")).to_have_count(4)
    assert set(sources(tab)).isdisjoint(before)
    assert seeds(tab) == first, "the seeds stay, so that a picture changes rather than jumps"
    assert re.fullmatch(r"[\d.]+ ms", tab.locator("#latency").text_content())
    expect(tab.locator("#status")).to_have_text("4 pictures painted")


def test_only_the_last_prompt_is_shown_and_stale_requests_are_dropped(tab: Any) -> None:
    asked: list[str] = []
    tab.on("request", lambda each: asked.append(each.post_data_json["prompt"]) if "generations" in each.url else None)
    tab.locator("#prompt").fill("")
    tab.locator("#prompt").press_sequentially("a red house", delay=5)
    tab.wait_for_timeout(1500)
    assert len(asked) < len("a red house")
    assert asked[-1] == "a red house"
    expect(tab.locator("#pictures button").first).to_have_attribute("aria-label", re.compile("^a red house, seed"))


def test_style_count_size_and_seed_are_what_the_server_is_asked(tab: Any) -> None:
    tab.locator("#styles label", has_text="pixel").click()
    tab.locator("#counts label", has_text="9").click()
    tab.locator("#seed").fill("77")
    with tab.expect_request(
        lambda each: "generations" in each.url and each.post_data_json["size"] == "128x128"
    ) as sent:
        tab.locator("#sizes label", has_text="128").click()
    body = sent.value.post_data_json
    assert (body["style"], body["n"], body["seed"], body["prompt"]) == ("pixel", 9, 77, "a red apple")
    expect(tab.locator("#pictures img")).to_have_count(9)
    assert seeds(tab) == [str(77 + k) for k in range(9)]


def test_a_picture_can_be_looked_at_and_downloaded(tab: Any, tmp_path: Path, running: Running) -> None:
    tab.locator("#seed").fill("5")
    expect(tab.locator("#pictures .seed").first).to_have_text("5")
    tab.locator("#pictures button").first.click()
    expect(tab.locator("#detail")).to_be_visible()
    with tab.expect_download() as download:
        tab.locator("#detail-download").click()
    assert download.value.suggested_filename == "a-red-apple-5.png"
    download.value.save_as(tmp_path / "apple.png")
    assert opened((tmp_path / "apple.png").read_bytes()).shape == (64, 64, 4)


def test_what_one_looked_at_is_kept_with_its_seed_and_can_be_painted_again(tab: Any) -> None:
    tab.locator("#seed").fill("5")
    expect(tab.locator("#pictures .seed").first).to_have_text("5")
    expect(tab.locator("#gallery li")).to_have_count(4)  # once it rested
    tab.locator("#prompt").fill("a green tree")
    expect(tab.locator("#pictures button").first).to_have_attribute("aria-label", re.compile("^a green tree"))
    tab.locator("#gallery button").nth(2).click()
    tab.locator("#detail-use").click()
    expect(tab.locator("#pictures button").first).to_have_attribute("aria-label", "a red apple, seed 7: open")
    expect(tab.locator("#prompt")).to_have_value("a red apple")


def test_ratings_are_kept_changed_and_taken_back(tab: Any, running: Running) -> None:
    from limner.server.ratings import Store

    store = Store(running.service.config.feedback.url or "")
    tab.locator("#pictures button").first.click()
    good, bad = (tab.locator(f"#rate [data-rating='{each}']") for each in (5, 1))
    good.click()
    expect(good).to_have_attribute("aria-pressed", "true")
    assert [each.rating for each in store.ratings()] == [5]
    bad.click()
    expect(bad).to_have_attribute("aria-pressed", "true")
    assert [(each.rating, each.prompt) for each in store.ratings()] == [(1, "a red apple")]
    bad.click()
    expect(bad).to_have_attribute("aria-pressed", "false")
    assert store.count() == 0


def test_it_enlarges_compares_and_downloads(tab: Any, tmp_path: Path) -> None:
    tab.locator("#tab-enlarge").click()
    tab.locator("#file").set_input_files({"name": "lake.png", "mimeType": "image/png", "buffer": picture_file(48, 32)})
    expect(tab.locator("#compare")).to_be_visible()
    expect(tab.locator("#facts")).to_have_text(re.compile(r"48 × 32 → 96 × 64 · \d+ kB · .+"))
    tab.locator("#split").fill("20")
    assert tab.locator("#before").evaluate("each => getComputedStyle(each).clipPath").startswith("inset(0")
    assert tab.locator("#frame").evaluate("each => each.style.getPropertyValue('--split')") == "20%"
    with tab.expect_download() as download:
        tab.locator("#download").click()
    assert download.value.suggested_filename == "lake-x2.png"
    download.value.save_as(tmp_path / "lake.png")
    assert opened((tmp_path / "lake.png").read_bytes()).shape[:2] == (64, 96)


def test_a_picture_can_be_dropped_anywhere(tab: Any) -> None:
    data = tab.evaluate_handle(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
            return data;
        }""",
        list(picture_file(16, 16)),
    )
    tab.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(tab.locator("#tab-enlarge")).to_have_attribute("aria-selected", "true")
    expect(tab.locator("#facts")).to_contain_text("16 × 16 → 32 × 32")


def test_a_painted_picture_can_be_enlarged(tab: Any) -> None:
    tab.locator("#pictures button").first.click()
    tab.locator("#detail-enlarge").click()
    expect(tab.locator("#facts")).to_contain_text("64 × 64 → 128 × 128")


def test_faults_are_told_in_the_servers_words(browser: Any, running: Running) -> None:
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(running.url)
    expect(page.locator("#pictures img")).to_have_count(4)
    page.locator("#prompt").fill("porn")
    expect(page.locator("#notice")).to_contain_text("flagged as sexual")
    page.locator("#prompt").fill("a red cat")
    expect(page.locator("#notice")).to_be_hidden()
    page.locator("#tab-enlarge").click()
    page.locator("#file").set_input_files({"name": "bad.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#notice")).to_be_visible()
    context.close()


def test_it_works_by_keyboard_alone(tab: Any) -> None:
    tab.keyboard.press("/")
    expect(tab.locator("#prompt")).to_be_focused()
    before = seeds(tab)
    tab.keyboard.press("Control+Enter")
    expect(tab.locator("#pictures .seed").first).not_to_have_text(before[0])
    tab.locator("#tab-paint").focus()
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#enlarge")).to_be_visible()
    tab.keyboard.press("ArrowLeft")
    expect(tab.locator("#paint")).to_be_visible()
    tab.locator("#pictures button").first.focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("#detail")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.locator("#detail")).to_be_hidden()
    expect(tab.locator("#pictures button").first).to_be_focused()
    assert tab.locator("#pictures button").first.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"


def test_it_speaks_chinese(tab: Any) -> None:
    tab.locator("#language").click()
    expect(tab.locator("#tab-paint")).to_have_text("绘画")
    assert tab.evaluate("document.documentElement.lang") == "zh-CN"
    expect(tab.locator("#styles label").first).to_have_text("不限")
    tab.reload()
    expect(tab.locator("#tab-paint")).to_have_text("绘画")
    tab.locator("#language").click()
    expect(tab.locator("#tab-paint")).to_have_text("Paint")


def test_it_fits_a_phone(phone: Any) -> None:
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    small = phone.evaluate(
        """[...document.querySelectorAll("button, select, textarea, .segmented label, .chips label")]
            .filter((each) => each.offsetParent && each.getBoundingClientRect().height < 36).length"""
    )
    assert small == 0
    first = phone.locator("#pictures img").first.bounding_box()
    assert first["y"] < PHONE["height"], "pictures are seen without scrolling"
    phone.locator("#tab-enlarge").tap()
    phone.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture_file(64, 96)})
    expect(phone.locator("#compare")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_server_with_keys_asks_for_one(browser: Any, tmp_path: Path) -> None:
    from limner.server.access import digest

    keys = ({"name": "me", "sha256": digest("lim-secret")},)
    with serving(configured(make_zoo(tmp_path), page=True, keys=keys)) as server:
        context = browser.new_context(locale="en-GB")
        page = context.new_page()
        page.goto(server.url)
        page.locator("#key").fill("lim-secret")
        page.locator("#key").press("Enter")
        expect(page.locator("#pictures img")).to_have_count(4)
        context.close()

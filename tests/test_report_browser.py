"""report.html in a real browser: Debian's chromium, headless. Skipped where there is none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agent.analysis.choice_options import ChoiceOptions, Limit
from agent.analysis.series import series
from agent.export import export, read_local
from agent.report.write import PAGE
from tests.studies import HOSTILE, grid, result, save, with_losses

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no chromium with chromedriver: apt-get install chromium chromium-driver",
    ),
]

FLAGS = (
    "--headless --no-sandbox --disable-gpu --enable-unsafe-swiftshader --disable-quic "
    "--no-first-run --disable-background-networking --disable-component-update --disable-sync "
    "--hide-scrollbars --window-size=1280,1600"
)
WAIT = 60
"""A software renderer on a busy machine is slow [s]."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = save(tmp_path_factory.mktemp("study"), with_losses(grid(seeds=(0, 1))))
    export(study)
    return study


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(str(DRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: WebDriver, study: Path) -> WebDriver:
    """The page, loaded anew and drawn."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what was before does not count
    browser.get((study / PAGE).as_uri())
    until(browser, "return document.body.dataset.ready === 'yes'")
    until(browser, "return document.querySelectorAll('#parallel .y-axis').length > 3")
    return browser


def until(browser: WebDriver, script: str) -> Any:
    return WebDriverWait(browser, WAIT).until(lambda driver: driver.execute_script(script))


def errors(browser: WebDriver) -> list[str]:
    return [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]


def column(browser: WebDriver, name: str) -> list[float]:
    """The numbers of a column of the table, as they stand on the page from top to bottom."""
    cells = browser.execute_script(
        "const i = [...document.querySelectorAll('#heads th')].findIndex("
        "  head => head.textContent === arguments[0]);"
        "return [...document.querySelectorAll('#rows tr')].map("
        "  row => row.children[i].firstChild.textContent)",
        name,
    )
    return [float(cell.replace(",", "")) for cell in cells if cell != "–"]


def labels(browser: WebDriver) -> list[str]:
    return [e.text.split("\n")[0] for e in browser.find_elements(By.CSS_SELECTOR, "#rows tr th")]


def test_it_is_drawn_without_an_error_or_a_request(page: WebDriver, tmp_path: Path) -> None:
    for plot in ("scatter", "parallel", "losses"):
        assert page.find_elements(By.CSS_SELECTOR, f"#{plot} .main-svg"), plot
    assert "WebGL is not supported" not in page.find_element(By.TAG_NAME, "body").text
    assert errors(page) == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked
    picture = tmp_path / "report.png"
    page.save_screenshot(str(picture))
    with Image.open(picture) as image:
        assert len(image.convert("RGB").getcolors(2**24) or []) > 1000, "an empty page"


def test_a_hostile_message_is_shown_and_not_run(page: WebDriver) -> None:
    table = page.find_element(By.ID, "failures").text
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>-->" in table
    assert page.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert page.execute_script("return document.scripts.length") == 3
    with pytest.raises(Exception, match="no such alert"):
        _ = page.switch_to.alert.text


def test_a_heading_sorts_and_sorts_back(page: WebDriver) -> None:
    head = next(
        h for h in page.find_elements(By.CSS_SELECTOR, "#heads th") if h.text == "phase SSIM"
    )
    assert head.get_attribute("aria-sort") == "descending", "the best ones stand first"
    falling = column(page, "phase SSIM")
    assert len(falling) > 40 and falling == sorted(falling, reverse=True)
    head.find_element(By.TAG_NAME, "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "phase SSIM") == sorted(falling)
    cost = next(
        h for h in page.find_elements(By.CSS_SELECTOR, "#heads th") if h.text == "parameters"
    )
    cost.find_element(By.TAG_NAME, "button").click()
    assert cost.get_attribute("aria-sort") == "ascending", "the cheapest first"
    assert head.get_attribute("aria-sort") == "none"
    assert column(page, "parameters") == sorted(column(page, "parameters"))


def test_words_find_configurations(page: WebDriver) -> None:
    page.find_element(By.ID, "filter").send_keys("hybrid sqrt")
    shown = labels(page)
    assert len(shown) == 9 and all(label.startswith("hybrid sqrt") for label in shown)


def test_brushing_an_axis_narrows_the_table_and_the_plot(page: WebDriver) -> None:
    """A drag along the first axis, as a hand does it, keeps one architecture."""
    before = len(labels(page))
    plot = page.find_element(By.ID, "parallel")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    axis = page.find_elements(By.CSS_SELECTOR, "#parallel .axis-brush .background")[0]
    height = axis.size["height"]
    # From a little above the middle to the top: only the upper of two values.
    ActionChains(page).move_to_element_with_offset(axis, 0, int(-0.1 * height)).click_and_hold(
    ).move_by_offset(0, int(-0.2 * height)).move_by_offset(0, int(-0.2 * height)).release(
    ).perform()  # fmt: skip
    until(page, "return document.getElementById('brushed').textContent !== ''")
    said = page.find_element(By.ID, "brushed").text
    kept = labels(page)
    match = re.fullmatch(r"(\d+) of (\d+) configurations", said)
    assert match and int(match[1]) == len(kept) < before
    assert len({label.split()[0] for label in kept}) == 1
    faded = page.execute_script(
        "return document.getElementById('scatter').data.filter(t => t.selectedpoints).map("
        "t => t.selectedpoints.length).reduce((a, b) => a + b, 0)"
    )
    assert faded == len(kept)
    page.find_element(By.ID, "unbrush").click()
    until(page, "return document.getElementById('brushed').textContent === ''")
    assert len(labels(page)) == before
    assert errors(page) == []


def test_a_row_shows_its_numbers_and_its_picture(page: WebDriver) -> None:
    chosen = page.find_element(By.CSS_SELECTOR, "#rows tr.recommended")
    name = chosen.find_element(By.TAG_NAME, "th").text.split("\n")[0].strip()
    other = next(
        r for r in page.find_elements(By.CSS_SELECTOR, "#rows tr")
        if r.get_attribute("class") == ""
    )  # fmt: skip
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", other)
    other.click()
    detail = page.find_element(By.ID, "detail")
    assert name not in detail.text
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", chosen)
    chosen.click()
    assert name.removesuffix("recommended").strip() in detail.text
    picture = detail.find_element(By.TAG_NAME, "img")
    assert page.execute_script("return arguments[0].naturalWidth", picture) > 20


def test_pointing_at_a_point_shows_its_configuration(page: WebDriver) -> None:
    page.execute_script("document.getElementById('scatter').scrollIntoView({block: 'center'})")
    point = page.find_elements(By.CSS_SELECTOR, "#scatter .scatterlayer .trace .point")[0]
    ActionChains(page).move_to_element(point).perform()
    name = until(
        page,
        "const text = document.querySelector('#scatter .hoverlayer .hovertext');"
        "return text && text.textContent",
    )
    shown = page.find_element(By.CSS_SELECTOR, "#detail h3").text
    assert name.startswith(shown)
    assert errors(page) == []


@pytest.mark.parametrize("kind", ["none finished", "hostile devices and two series", "one run"])
def test_other_studies_open_without_an_error(kind: str, browser: WebDriver, tmp_path: Path) -> None:
    runs = {
        "none finished": [run for run in with_losses(grid((0,))) if run.status == "failed"],
        "hostile devices and two series": [
            result(width=width, epochs=epochs, provenance={"device_name": device})
            for width in (32, 48, 64)
            for epochs in (1, 2)
            for device in (HOSTILE, "CPU")
            if (device == "CPU") == (width == 48)
        ],
        "one run": [result()],
    }[kind]
    export(save(tmp_path / "x", runs), allow_mixed=True)
    browser.get_log("browser")
    browser.get((tmp_path / "x" / PAGE).as_uri())
    until(browser, "return document.body.dataset.ready === 'yes'")
    # Every series and every front, by the menus.
    for menu in ("series", "front"):
        for option in browser.find_elements(By.CSS_SELECTOR, f"#{menu} option"):
            if option.is_displayed():
                option.click()
    assert errors(browser) == []
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.execute_script("return document.scripts.length") == 3


def test_the_front_answers_which_configuration_has_a_quality_at_a_cost(
    page: WebDriver, study: Path
) -> None:
    """The same that an export with these limits chooses, and the nearest where none meets them."""
    assert page.find_elements(By.CSS_SELECTOR, "#ladder .main-svg")
    recommended = page.execute_script("return data.series[0].recommended")
    assert page.execute_script("return state.answer.row") == recommended, "no limit excludes any"

    def ask(quality: float, cost: float) -> tuple[str, str]:
        for name, bound in (("quality", quality), ("cost", cost)):
            box = page.find_element(By.ID, name)
            box.clear()
            box.send_keys(str(bound))
        said = page.find_element(By.ID, "answer")
        return said.find_element(By.TAG_NAME, "strong").text, said.text

    column = page.execute_script("return data.series[0].fronts[0].y")
    for quality, cost in ((0.6, 600_000), (0.68, 5_000_000)):
        limits = (Limit(column, quality, True), Limit("model_params", cost, False))
        chosen = series(read_local(study).counted, ChoiceOptions(limits=limits))[0]
        assert chosen.recommendation is not None
        name, _ = ask(quality, cost)
        assert name == chosen.configs["configuration"][chosen.recommendation.config]
    limits = (Limit(column, 0.9, True), Limit("model_params", 300_000, False))
    name, said = ask(0.9, 300_000)
    assert "nearest" in said
    assert name in series(read_local(study).counted, ChoiceOptions(limits=limits))[0].why_not
    slider = page.find_element(By.ID, "cost-slider")
    slider.send_keys(Keys.END)
    assert float(page.find_element(By.ID, "cost").get_attribute("value") or 0) > 5_000_000
    assert errors(page) == []


def test_the_options_beside_the_answer_are_those_of_the_export_too(
    browser: WebDriver, tmp_path: Path
) -> None:
    options = ChoiceOptions(price=0.1, limits=(Limit("psnr_phase", 15.0, True),))
    export(save(tmp_path / "x", grid(seeds=(0,)), pictures=False), options=options)
    browser.get((tmp_path / "x" / PAGE).as_uri())
    until(browser, "return document.body.dataset.ready === 'yes'")
    said = browser.find_element(By.CSS_SELECTOR, "#answer code").text
    assert said.startswith("--price 0.1 --at-least psnr_phase=15.0 --at-least ssim_phase=")


def test_parallel_coordinates_name_the_values_of_a_key(browser: WebDriver, tmp_path: Path) -> None:
    """Rates below a thousandth among them; no value twice, and each at its own place."""
    rates = (1e-4, 3e-4, 1e-3, 3e-3)
    runs = [result(width=width, learning_rate=rate) for width in (8, 512) for rate in rates]
    export(save(tmp_path / "x", runs, pictures=False))
    browser.get((tmp_path / "x" / PAGE).as_uri())
    until(browser, "return document.body.dataset.ready === 'yes'")
    axes = browser.execute_script(
        "return Object.fromEntries(document.getElementById('parallel').data[0].dimensions.map("
        "  ({label, ticktext, values}) => [label, ticktext && values.map(v => ticktext[v])]))"
    )
    for key in ("width", "learning_rate"):
        texts = sorted(str(run.config[key]) for run in runs)
        assert sorted(axes[key.replace("_", " ")]) == texts
    shown = [e.text for e in browser.find_elements(By.CSS_SELECTOR, "#parallel .axis .tick text")]
    assert {str(rate) for rate in rates} <= set(shown)
    assert errors(browser) == []

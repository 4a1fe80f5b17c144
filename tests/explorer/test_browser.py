"""A browser looks at the report and at the explorer, in JupyterLab and in Voila. Skipped, with the reason,
where there is no Chromium.
"""

import base64
import json
import re
import shutil

import browser as look
import nbformat
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from qpm_lib.core.artifacts import read_json
from qpm_lib.runs.chapters import notebooks_folder

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(
        look.CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium, or install Google Chrome"
    ),
]
_ALLOWED = r"(file|data|blob|about):|https?://127\.0\.0\.1|https://cdn\.jsdelivr\.net/npm/@fortawesome/"
CHAPTER = "07_saliency_explorer"


@pytest.fixture(scope="module")
def chromium():
    with look.chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium):
    """A page that must not complain, nor ask for anything outside this machine (but for icons that Voila itself wants,
    and does without).
    """
    page, complaints = chromium.new_page(viewport={"width": 1280, "height": 1000}), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: complaints.append(r.url) if not re.match(_ALLOWED, r.url) else None)
    yield page
    page.close()
    assert not complaints


def pixels(page):
    """The canvas of the report's explorer as (h, w, 4)."""
    values = page.evaluate(
        "() => { const c = document.getElementById('heat'); return [...c.getContext('2d').getImageData(0, 0, c.width, "
        "c.height).data]; }"
    )
    return np.array(values).reshape(224, 224, 4)


def numbers(page, selector):
    return [float(text.replace("−", "-")) for text in page.locator(selector).all_inner_texts()]


def data_of(page):
    return json.loads(page.locator("#data").text_content())


def score_of(data, picture, c):
    return sum(w * picture["values"][f] for f, w in data["weight"][c]) + data["constants"][c]


def test_the_explorer_of_the_report(smoke, page):
    page.goto((smoke / "report" / "explorer.html").as_uri())
    data = data_of(page)
    first = data["pictures"][0]
    assert f"Picture {first['row']}:" in page.inner_text("#words")
    page.wait_for_function("document.getElementById('photo').naturalWidth > 100")
    shown = score_of(data, first, first["predicted"])
    assert sum(numbers(page, "#bars .value")) + data["constants"][first["predicted"]] == pytest.approx(shown, abs=0.03)
    assert f"Score {shown:.2f}" in page.inner_text("#total").replace("−", "-")
    everything = pixels(page)
    assert (everything[..., 3] > 100).mean() > 0.01
    # each feature alone: what is drawn is strongest where its map is
    boxes = page.locator("#bars input")
    for i in range(boxes.count()):
        boxes.nth(i).uncheck()
    assert pixels(page)[..., 3].max() == 0
    assert "none" in page.inner_text("#shown")
    for i in range(boxes.count()):
        f = int(boxes.nth(i).get_attribute("value"))
        boxes.nth(i).check()
        grid = data["grid"]
        heat = np.frombuffer(base64.b64decode(first["maps"]), np.uint8).reshape(-1, grid, grid)[f]
        alpha = pixels(page)[..., 3]
        if alpha.max() > 20:
            row, column = np.unravel_index(alpha.argmax(), alpha.shape)
            assert heat[row * grid // 224, column * grid // 224] > 0.8 * heat.max()
        boxes.nth(i).uncheck()
    page.fill("#opacity", "0.1")
    for i in range(boxes.count()):
        boxes.nth(i).check()
    assert 0 < pixels(page)[..., 3].max() <= 26
    page.fill("#threshold", "0.5")
    assert (pixels(page)[..., 3] > 0).mean() < (everything[..., 3] > 0).mean()


def test_flipping_through_the_report(smoke, page):
    page.goto((smoke / "report" / "explorer.html").as_uri())
    data = data_of(page)
    rows = [p["row"] for p in data["pictures"]]
    page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == f"#{rows[1]}"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert f"Picture {rows[-1]}:" in page.inner_text("#words")
    page.check("#mistakes")
    wrong = [p for p in data["pictures"] if p["truth"] != p["predicted"]]
    assert page.locator("#strip button").count() == len(wrong)
    if wrong:
        assert "wrong" in page.inner_text("#words")
        truth, answer = wrong[0]["truth"], wrong[0]["predicted"]
        assert page.input_value("#other") == str(truth)
        lead = score_of(data, wrong[0], answer) - score_of(data, wrong[0], truth)
        assert f"is {lead:.2f} above" in page.inner_text("#gap")
        added = [float(v.replace("−", "-")) for v in re.findall(r"[+−]\d+\.\d+", page.inner_text("#difference"))]
        assert sum(added) == pytest.approx(lead, abs=0.03)
    page.uncheck("#mistakes")
    page.select_option("#class", "2")
    mine = [p for p in data["pictures"] if p["truth"] == 2]
    assert page.locator("#strip button").count() == len(mine)
    page.locator("#strip button").nth(len(mine) - 1).click()
    assert f"Picture {mine[-1]['row']}:" in page.inner_text("#words")
    page.select_option("#explained", "0")
    assert f"Score {score_of(data, mine[-1], 0):.2f}" in page.inner_text("#total")
    frame = page.locator("#frame").bounding_box()
    page.mouse.click(frame["x"] + frame["width"] * 0.99, frame["y"] + 2)
    assert (page.input_value("#column"), page.input_value("#row")) == (str(data["grid"] - 1), "0")
    assert page.locator("#mark").is_visible()
    page.fill("#column", "999")
    assert "NaN" not in page.inner_text("main")
    page.goto((smoke / "report" / "explorer.html").as_uri() + f"#{rows[5]}")
    page.reload()
    assert f"Picture {rows[5]}:" in page.inner_text("#words")


def test_the_explorer_of_the_report_by_keyboard(smoke, page):
    page.goto((smoke / "report" / "explorer.html").as_uri())
    rows = [p["row"] for p in data_of(page)["pictures"]]
    page.locator("#surprise").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.parentElement.id") == "strip"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == f"#{rows[1]}"
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"  # the focus moves along
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "explained"  # the strip is one stop
    page.locator("#bars input").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == f"#{rows[2]}"
    page.locator("#opacity").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("location.hash") == f"#{rows[2]}"


def test_a_filter_that_nothing_fits(smoke, page):
    page.goto((smoke / "report" / "explorer.html").as_uri())
    wrong = {p["truth"] for p in data_of(page)["pictures"] if p["truth"] != p["predicted"]}
    free = next((c for c in range(len(data_of(page)["classes"])) if c not in wrong), None)
    if free is None:
        pytest.skip("every class of this run has mistakes")
    page.select_option("#class", str(free))
    page.check("#mistakes")
    assert "No picture fits" in page.inner_text("#message")
    assert page.locator("#on").is_disabled()
    before = page.inner_text("#words")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#words") == before
    page.uncheck("#mistakes")
    assert page.inner_text("#message") == ""
    assert page.locator("#on").is_enabled()
    assert page.locator("#strip").is_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_long_names_make_no_page_wider_than_the_screen(smoke, page, tmp_path, width):
    report = shutil.copytree(smoke / "report", tmp_path / "report")
    page.set_viewport_size({"width": width, "height": 900})
    name = read_json(smoke / "model" / "model.json")["class_names"][0]
    for path in report.glob("*.html"):
        path.write_text(
            path.read_text()
            .replace(name, "Chevrolet Silverado 1500 Classic Extended Cab 2007 " * 4)
            .replace("feature 1", "f" * 90)
        )
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0, (
            path.name
        )


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_of_the_report_is_wider_than_the_screen(smoke, page, width):
    page.set_viewport_size({"width": width, "height": 900})
    for path in sorted((smoke / "report").glob("*.html")):
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0, (
            path.name
        )
        assert page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).length") == 0, path.name


def test_the_report_without_a_script(smoke, chromium):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((smoke / "report" / "explorer.html").as_uri())
    assert "needs JavaScript" in page.inner_text("main")
    page.goto((smoke / "report" / "mistakes.html").as_uri())
    assert "test pictures" in page.inner_text("main")
    context.close()


@pytest.fixture
def chapter(smoke, tmp_path):
    """A folder with chapter 7, set to look at the smoke run."""
    (tmp_path / "books").mkdir()
    return look.chapter_for(smoke, tmp_path / "books", notebooks_folder() / f"{CHAPTER}.ipynb", "smoke")


def source_of(explorer):
    """What the large picture shows."""
    return explorer.locator("img").evaluate_all("images => images.sort((a, b) => b.clientWidth - a.clientWidth)[0].src")


def large_picture(explorer):
    """The picture with its maps: the first of 448 pixels."""
    sides = explorer.locator("img").evaluate_all("images => images.map(i => i.clientWidth)")
    return explorer.locator("img").nth(sides.index(448))


def photograph(path, *, side):
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def take(page, explorer, file):
    with page.expect_file_chooser() as chooser:
        explorer.locator("button:has-text('your picture')").click()
    chooser.value.set_files(file)


def changed(page, explorer, before):
    for _ in range(1200):  # a minute: a kernel that is at work answers later
        if source_of(explorer) != before:
            return True
        page.wait_for_timeout(50)
    return False


def test_the_explorer_in_jupyterlab(chapter, page, tmp_path):
    with look.served("lab", chapter.parent, log=tmp_path / "lab.txt") as address:
        explorer = look.run_all(page, f"{address}/lab/tree/{chapter.name}")
        page.wait_for_selector(look.IDLE, timeout=120_000)  # the cells below are executed too
        page.wait_for_function("document.querySelectorAll('.jp-Notebook .jp-Cell').length > 5")
        explorer.scroll_into_view_if_needed()
        assert explorer.bounding_box()["width"] <= 1280
        expect(explorer).to_contain_text("predicted", use_inner_text=True, timeout=30_000)
        before = source_of(explorer)
        box = explorer.locator("input[type=checkbox]").first
        box.focus()
        page.keyboard.press("Space")  # by keyboard alone
        assert changed(page, explorer, before)
        before = source_of(explorer)
        explorer.locator("button:has-text('surprise me')").click()
        assert changed(page, explorer, before)
        cells = page.locator(".jp-Notebook .jp-Cell").count()
        for key in ("x", "d", "d", "b"):  # commands of the notebook, not of the button that has the focus
            page.keyboard.press(key)
        shown = explorer.locator("select").first
        shown.focus()
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(300)
        assert page.locator(".jp-Notebook .jp-Cell").count() == cells
        expect(shown).to_be_focused()
        assert shown.evaluate("select => select.selectedIndex") == 1
        assert all(explorer.locator("img").evaluate_all("images => images.map(i => i.alt && i.title)"))
        page.wait_for_timeout(500)
        page.wait_for_selector(look.IDLE)  # nothing moves any more
        before = source_of(explorer)
        large_picture(explorer).click(position={"x": 440, "y": 10})
        assert changed(page, explorer, before)
        expect(explorer).to_contain_text(
            re.compile("of its maximum|No feature fires here"), use_inner_text=True, timeout=30_000
        )
        patch = explorer.locator(".widget-readout:visible").filter(has_text=re.compile(r"^\d+$"))
        expect(patch).to_have_text(["15", "0"], timeout=30_000)
        take(
            page, explorer, photograph(tmp_path / "large.png", side=2100)
        )  # noise: more bytes than one message may have
        explorer.locator("text=large.png (2100 x 2100 pixels, 14 MB) was made smaller").wait_for(timeout=30_000)
        expect(explorer).to_contain_text("large.png: predicted", use_inner_text=True, timeout=30_000)
        Image.new("1", (9000, 6000)).save(tmp_path / "huge.png")  # few bytes, too many pixels
        take(page, explorer, tmp_path / "huge.png")
        explorer.locator(
            "text=huge.png (9000 x 6000 pixels, 1 MB) was made smaller before it was sent: 2048 x 1365"
        ).wait_for(timeout=60_000)
        (tmp_path / "notes.png").write_text("no picture")
        take(page, explorer, tmp_path / "notes.png")
        explorer.locator("text=notes.png cannot be read as a picture").wait_for(timeout=30_000)
        (tmp_path / "film.tif").write_bytes(bytes(9_000_000))
        take(page, explorer, tmp_path / "film.tif")
        explorer.locator("text=film.tif has 9 MB, and this browser cannot read it").wait_for(timeout=30_000)
        take(page, explorer, photograph(tmp_path / "small.png", side=300))
        explorer.locator("text=small.png: predicted").wait_for(timeout=30_000)
        page.locator(
            ".jp-Toolbar [data-command='notebook:restart-kernel'], [data-jp-item-name=restart] *"
        ).first.click()
        page.locator(".jp-Dialog .jp-mod-accept").click()
        page.wait_for_function(
            "getComputedStyle(document.querySelector('.qpm-explorer'), '::before').content.includes('run the cell "
            "again')",
            timeout=30_000,
        )


def test_the_explorer_as_an_app(chapter, page, tmp_path):
    pytest.importorskip("voila", reason="voila is not installed: pip install 'qpm_lib[app]'")
    with look.served("voila", chapter.parent, chapter.name, log=tmp_path / "voila.txt") as address:
        page.goto(address, timeout=90_000)
        explorer = page.locator(".qpm-explorer").first
        explorer.locator("img").first.wait_for(timeout=120_000)
        expect(explorer).to_contain_text("predicted", use_inner_text=True, timeout=30_000)
        before = source_of(explorer)
        explorer.locator("button:has-text('surprise me')").click()
        assert changed(page, explorer, before)


def test_the_notebook_under_test_is_the_chapter(chapter):
    book = nbformat.read(chapter, as_version=4)
    original = nbformat.read(notebooks_folder() / f"{CHAPTER}.ipynb", as_version=4)
    assert sum(a.source != b.source for a, b in zip(book.cells, original.cells, strict=True)) == 1


def test_the_chain_says_what_the_browser_sees(smoke, page):
    page.goto((smoke / "report" / "index.html").as_uri())
    accuracy = read_json(smoke / "metrics.json")["models"]["qpm"]["values"]["accuracy"]
    assert page.locator(".tiles b").first.inner_text() == f"{100 * accuracy:.1f} %"

"""The report is one page that needs no network; in a browser, where there is one, its plots turn and it fits a phone."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from isce import plots, profiles, report, verdicts

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
RAN = {"parameters": {"n": 3}, "start_time": "2026-01-02T03:04:05.678"}
S, M = np.linspace(1, 2, 4), np.linspace(0.02, 0.1, 3)
SURFACES = [{"title": f"panel {k}, digits for MNIST", "s": S, "m": M, "accuracy": S[:, None] + M + k} for k in (1, 2)]
CLOUDS = [{"method": m, "points": np.eye(10, 3) + k, "labels": np.arange(10)} for k, m in enumerate(("sce", "isce"))]
FIGURES = {
    "figure3_ablation": plots.ablation_surface_plotly(SURFACES),
    "figure4_embedding": plots.embedding_plotly(CLOUDS),
    "figure5_condition": plots.condition_surface_plotly(S, M, S[:, None] - M - 1, title="z(s, m) < 1 & more"),
}


def shown(**data: Any) -> nbformat.NotebookNode:
    return new_output("display_data", data={key.replace("_", "/", 1): value for key, value in data.items()})


def fabricate(folder: Path) -> None:
    """Notebooks as the pipeline leaves them: with a picture, plotly's loader, a plot that turns, a table."""
    folder.mkdir(parents=True)
    for name, figure in FIGURES.items():
        loader = shown(text_html='<script src="https://cdn.plot.ly/plotly.min.js"></script>')
        turning = new_output("display_data", data={report.TURNABLE: json.loads(figure.to_json()), "text/html": "<div>"})
        table = shown(text_html=pd.DataFrame({f"column {k}": [f"{name} {k}"] for k in range(20)}).to_html())
        outputs = [shown(image_png=PIXEL), loader, turning, table]
        cells = [new_markdown_cell("# title"), new_markdown_cell("## A section"), new_code_cell("1", outputs=outputs)]
        nbformat.write(new_notebook(cells=cells, metadata={"papermill": RAN}), folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed report, its figures' cell filled anew from fabricated notebooks."""
    folder = tmp_path_factory.mktemp("report")
    fabricate(folder / "digits")
    notebook = nbformat.read(NOTEBOOKS / "report.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if "show_figures" in c.source]
    cell.outputs = []

    def display(data: Any, metadata: dict[str, Any] | None = None, **_: Any) -> None:
        data = data if isinstance(data, dict) else {"text/markdown": data.data}
        cell.outputs.append(new_output("display_data", data=data, metadata=metadata or {}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISCE_RUNS", str(folder))
        patch.setattr("IPython.display.display", display)
        for name in report.FIGURES:
            report.show_figures(profiles.load("digits"), name)
    nbformat.write(notebook, folder / "report.ipynb")
    path = folder / "report.html"
    path.write_text(report.to_html(folder / "report.ipynb"), encoding="utf-8")
    return path


def test_what_was_not_run_here_is_shown_as_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    shown_pictures: dict[str, list[str]] = {}

    def display(*data: Any, **_: Any) -> None:
        shown_pictures[name] += [Path(d.filename).name for d in data if getattr(d, "filename", None)]

    monkeypatch.setattr("IPython.display.display", display)
    for profile in ("full", "digits"):
        shown_pictures |= {name: [] for name in report.FIGURES}
        for name in report.FIGURES:
            assert report.show_figures(profiles.load(profile), name) == bool(shown_pictures[name])
        found = {picture for pictures in shown_pictures.values() for picture in pictures}
        if profile == "digits":
            assert not found
        else:
            assert {"figure3_ablation_full.png", "figure5_condition.png", "theory_gain_mnist_lenet5.png"} <= found
            assert not [picture for picture in found if "cpu" in picture]


class Tags(HTMLParser):
    """Where the tags of a page lead, what they load, and their ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for key, value in attrs if key in ("src", "srcset", "href", "data", "action")]
        self.ids += [value or "" for key, value in attrs if key == "id"]


def test_titles_are_those_of_the_notebooks() -> None:
    for name, title in report.FIGURES.items():
        assert nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells[0].source.splitlines()[0] == f"# {title}"


def test_page_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tags = Tags(text)
    assert all(link.startswith(("#", "data:")) for link in tags.links), [li for li in tags.links if "//" in li[:10]]
    for style in re.findall(r"<style.*?</style>", text, re.DOTALL):
        assert not re.search(r"@import|url\((?!['\"]?data:)", style)
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    assert "mathjax.js" not in text.lower()
    assert len(text) < 10e6


def test_links_of_the_contents_lead_somewhere(page: Path) -> None:
    contents, body = page.read_text(encoding="utf-8").split("<main>")
    ids, links = Tags(body).ids, [link for link in Tags(contents).links if link.startswith("#")]
    assert len(links) > 20
    assert {link: ids.count(link[1:]) for link in links} == dict.fromkeys(links, 1)


def test_the_ledger_links_to_the_tables_and_figures_it_names(page: Path) -> None:
    body = page.read_text(encoding="utf-8").split("<main>")[1]
    ids = Tags(body).ids
    cells = re.findall(r"<td[^>]*>[^<]*(?:Tables?|Figures?) (<a.*?)</td>", body)
    linked = [to for cell in cells for to in re.findall(r'href="#([^"]+)"', cell)]
    assert len(linked) > 4
    assert all(ids.count(to) == 1 for to in linked)
    headings = [("Table-5", "Table 5"), ("f4", "Figure 4: what?")]
    row = "<td>worst case on: Tables 5-7</td><td id='a'>Figure 4</td><td>Tables are wide</td>"
    assert report._linked(row, headings) == (
        '<td>worst case on: Tables <a href="#Table-5">5</a>-7</td><td id=\'a\'>Figure <a href="#f4">4</a></td><td>Tables are wide</td>'
    )


def test_verdicts_come_first_and_code_is_hidden(page: Path) -> None:
    body = page.read_text(encoding="utf-8").split("<main>")[1]
    order = [
        "<h1",
        'id="Verdicts"',
        'id="The-ledger"',
        'id="Table-1"',
        "Figure 3: do s and m",
        'id="Where-the-numbers',
    ]
    places = [body.index(words) for words in order]
    assert places == sorted(places)
    assert "check_parameters" not in body


def test_figures_pass_through(page: Path) -> None:
    body = page.read_text(encoding="utf-8").split("<main>")[1]
    assert body.count(PIXEL) == body.count("Plotly.newPlot(") == len(FIGURES)
    assert all(f"<td>{name} 19</td>" in body for name in FIGURES)
    assert "<p>z(s, m) &lt; 1 &amp; more</p>" in body
    assert body.count("run 2026-01-02T03:04 with n = 3.") == len(FIGURES)
    # there is no notebook of it: not run, which the report's cell says in one line
    assert report.FIGURES["gradient_masking"] not in body


def test_plotly_is_left_out_where_nothing_turns(tmp_path: Path) -> None:
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A *title*")]), tmp_path / "report.ipynb")
    text = report.to_html(tmp_path / "report.ipynb")
    assert "<title>A title</title>" in text
    assert len(text) < 20_000


def test_in_short_counts_claims_by_verdict_and_by_arm() -> None:
    words = [verdicts.FAILS, verdicts.STANDS, verdicts.FAILS, verdicts.PART]
    judged = pd.DataFrame({"claim": ["C1", "C2", "C3", "C1"], "verdict": words})
    plain = report.in_short(judged).data
    assert plain["claims"].to_dict() == {
        verdicts.STANDS: "1 of 3: C2",
        verdicts.FAILS: "2 of 3: C1, C3",
        verdicts.PART: "1 of 3: C1",
    }
    by_arm = report.in_short(judged.assign(arm=["B", "B", "B", "C"])).data
    assert list(by_arm.columns) == ["B", "C"]
    assert by_arm.loc[verdicts.PART].to_dict() == {"B": "none", "C": "1 of 3: C1"}


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright: a development dependency")
    with sync.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome", "chrome")
        found = next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("no Chromium: `apt-get install chromium`, or `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=found, args=["--enable-unsafe-swiftshader"])
        yield browser
        browser.close()


def opened(browser: Any, page: Path, width: int, height: int) -> tuple[Any, list[str], list[str]]:
    """The page without a network, once its plots are drawn; what it asked for, and its errors."""
    tab = browser.new_context(viewport={"width": width, "height": height}, offline=True).new_page()
    asked: list[str] = []
    errors: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.set_default_timeout(60_000)  # WebGL in software
    tab.goto(page.as_uri())
    drawn = "[...document.querySelectorAll('.js-plotly-plot')].filter(d => d._fullLayout?.scene?._scene?.glplot).length"
    tab.wait_for_function(f"{drawn} == {len(FIGURES)}")
    return tab, asked, errors


@pytest.mark.browser
def test_plots_turn_without_network_and_errors(browser: Any, page: Path) -> None:
    tab, asked, errors = opened(browser, page, 1280, 900)
    for k in range(len(FIGURES)):
        eye = f"JSON.stringify(document.getElementById('plot{k}')._fullLayout.scene._scene.getCamera().eye)"
        scene = tab.locator(f"#plot{k} .gl-container canvas").first
        scene.scroll_into_view_if_needed()
        before, box = tab.evaluate(eye), scene.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 120, y + 30, steps=8)
        tab.mouse.up()
        tab.wait_for_function(f"{eye} != {json.dumps(before)}")
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [page.as_uri()]
    assert errors == []
    tab.context.close()


@pytest.mark.browser
def test_readable_on_a_phone(browser: Any, page: Path) -> None:
    tab, _, errors = opened(browser, page, 360, 740)
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 361  # the page is no wider than the screen,
    boxes = "[...document.querySelectorAll('.output_html')].filter(d => d.scrollWidth > d.clientWidth + 1).length"
    assert tab.evaluate(boxes) > 0  # because wide tables scroll in boxes of their own
    small = "[...document.querySelectorAll('main p, main li, main td, main th')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(tab.evaluate(small)) >= 13
    verdict, evidence = (tab.locator(f"[id='{name}']").bounding_box()["y"] for name in ("Verdicts", "Table-1"))
    assert verdict < 2 * 740 < evidence  # no more than a screen away
    labels = tab.locator(".celltag_cards td").first.evaluate("e => getComputedStyle(e, '::before').content")
    assert labels.strip('"') not in ("", "none", "normal")
    assert all(tab.locator(f"#plot{k}").bounding_box()["width"] <= 360 for k in range(len(FIGURES)))
    assert errors == []
    tab.context.close()

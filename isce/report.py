"""The report as one page: verdict first, plots that turn, and nothing that a browser would have to fetch."""

import re
import sys
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import nbformat
import pandas as pd
from pandas.io.formats.style import Styler

from isce import methods, paper, record, verdicts
from isce.profiles import Profile

# Name of the notebook -> its title, which a test holds against the notebook itself
FIGURES = {
    "figure1_inference_region": "Figure 1: where do adversarial features lie?",
    "figure2_label_regression": "Figure 2: from which side is the label regressed?",
    "figure3_ablation": "Figure 3: do s and m matter?",
    "figure4_embedding": "Figure 4: are the classes apart in a 3-D embedding?",
    "figure5_condition": "Figure 5: is the condition of the property true?",
    "theory": "The theory on real models",
    "curves": "Curves: accuracy against ε, smallest perturbations, loss against iterations",
    "gradient_masking": "Is it gradient masking?",
}
TURNABLE = "application/vnd.plotly.v1+json"
WHOSE: dict[paper.Status, str] = {"stated": "the paper's", "inferred": "inferred from its text"}


def in_short(judged: pd.DataFrame) -> Styler:
    """The verdicts in one small table: a row per word, with its claims; a column per arm where claims are judged by arm."""
    arm = judged["arm"] if "arm" in judged else pd.Series("claims", judged.index)
    claims = judged.groupby(["verdict", arm.rename(None)], sort=False)["claim"]
    of = judged["claim"].nunique()
    table = claims.agg(lambda ids: f"{ids.nunique()} of {of}: {', '.join(ids.unique())}").unstack(fill_value="none")
    words = sorted(table.index, key=list(verdicts.COLORS).index)
    style = table.loc[words, list(dict.fromkeys(arm))].rename_axis(index=None).style
    style.map_index(lambda word: f"background: {verdicts.COLORS[word]}; font-weight: bold; text-align: left", axis=0)
    style.format_index(lambda name: verdicts.HEADS.get(str(name), str(name)), axis=1)
    lines: list[Any] = [
        {"selector": "", "props": "width: auto"},  # of the page, and its lines break
        {"selector": "td, th", "props": "text-align: left; white-space: normal; min-width: 6em"},
    ]
    return record.named(style.set_table_styles(lines))


def settings(profile: Profile) -> pd.DataFrame:
    """What this replication was given and what it chose: a row per setting with its owner and its place or reason."""
    rows = {name: (str(fact.value), WHOSE[fact.status], fact.place) for name, fact in paper.SETTINGS.items()}
    for name, levels in (("L2 radii", profile.eps), ("SimBA steps", profile.simba_steps)):
        rows[name] = (str(levels), "ours", f"of profile {profile.name}: the paper's are lost")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "whose", "place, or reason"])


def method_settings(profile: Profile, names: Iterable[str]) -> pd.DataFrame:
    """The settings that we chose for each method, on each of the profile's data sets, and the source of each."""
    rows = {}
    for method in map(methods.get, names):
        given = {data: method.settings(data, {}) for data in dict.fromkeys(profile.stand_in.values())}
        text = {data: ", ".join(f"{key} = {value:g}" for key, value in found.items()) for data, found in given.items()}
        rows[method.label] = {**text, "source": method.source}
    return pd.DataFrame.from_dict(rows, orient="index")


def show_figures(profile: Profile, name: str) -> bool:
    """Display the plots and tables of a figure's notebook as the pipeline ran it, or say that it has not been run, and show the
    pictures of it that are committed. False, and nothing is shown, where there are none either."""
    from IPython.display import Image, Markdown, display

    path, pictures = record.runs_dir() / profile.name / f"{name}.ipynb", _committed(profile, name)
    if not path.is_file() and not pictures:
        return False
    display(Markdown(f"### {FIGURES[name]}"))
    if not path.is_file():
        display(Markdown(f"Not run: `make replicate PROFILE={profile.name}` runs `notebooks/{name}.ipynb`."))
        for picture in pictures:
            display(Markdown(f"Committed, drawn before: `figures/{picture.name}`"), Image(picture))
        return True
    notebook, heading = nbformat.read(path, as_version=4), ""
    display(Markdown(_how_it_ran(name, notebook.metadata.get("papermill", {}))))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^## (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
        for output in cell.get("outputs", []):
            if data := _evidence(output.get("data", {})):
                if heading:  # once, above the first thing shown of its section
                    display(Markdown(f"#### {heading}"))
                display(data, raw=True, metadata={"image/png": {"alt": f"{FIGURES[name]} {heading}".strip()}})
                heading = ""
    return True


def _committed(profile: Profile, name: str) -> list[Path]:
    """The pictures in figures/ of a figure's notebook, but those that name another profile."""
    others = {path.stem for path in record.config_dir().glob("*.yaml")} - {profile.name}
    found = [] if profile.is_stand_in else sorted(record.figures_dir().glob(f"{name}*.png"))
    return [path for path in found if not others & set(path.stem.split("_"))]


def _how_it_ran(name: str, ran: dict[str, Any]) -> str:
    given = ", ".join(f"{key} = {value}" for key, value in ran.get("parameters", {}).items())
    return f"`notebooks/{name}.ipynb`, run {ran.get('start_time', '')[:16]} with {given or 'its defaults'}."


def _evidence(data: dict[str, Any]) -> dict[str, Any]:
    """Of an output what the report repeats: a plot that turns, a picture, a table. Scripts that fetch plotly.js are neither."""
    for kind in (TURNABLE, "image/png"):
        if kind in data:
            return {kind: data[kind]}
    return {"text/html": data["text/html"]} if "<table" in data.get("text/html", "") else {}


def to_html(path: Path) -> str:
    """An executed notebook as one self-contained page: code hidden, headings listed, plotly.js inside, once, if needed.

    Formulas are not set: MathJax would have to be fetched, or weigh more than all of the rest.
    """
    import plotly.io as pio
    from nbconvert import HTMLExporter
    from plotly.offline import get_plotlyjs

    notebook = nbformat.read(path, as_version=4)
    shown = [o["data"] for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o]
    turnable = [data for data in shown if TURNABLE in data]
    options: dict[str, Any] = {"full_html": False, "include_plotlyjs": False, "validate": False}
    options["config"] = {"responsive": True, "displaylogo": False, "modeBarButtons": [["resetCameraDefault3d"]]}
    for k, data in enumerate(turnable):
        figure = data[TURNABLE]
        title = figure["layout"].pop("title", {}).get("text") or ""  # above the plot, where it can break on a phone
        figure["layout"] |= {"margin": figure["layout"].get("margin", {}) | {"t": 60}}
        data["text/html"] = f"<p>{'<br>'.join(map(escape, title.split('<br>')))}</p>" + pio.to_html(
            figure, div_id=f"plot{k}", **options
        )
    # "basic" is the body alone: the other templates load MathJax and require.js from a CDN.
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    headings = re.findall(r'<h([123]) id="([^"]+)">(.+?)<a class="anchor-link"', body)
    return Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8")).substitute(
        title=next((re.sub("<.+?>", "", text) for level, _, text in headings if level == "1"), path.stem),
        plotly=f"<script>{get_plotlyjs()}</script>" if turnable else "",
        contents="\n".join(
            f'<a class="h{level}" href="#{to}">{text}</a>' for level, to, text in headings if level > "1"
        ),
        body=_linked(body, [(to, text) for _, to, text in headings]),
    )


def _linked(body: str, headings: list[tuple[str, str]]) -> str:
    """The page with its tables' cells that name a table or figure, such as `Tables 5, 7`, linked to that heading."""
    to = {found.group(): anchor for anchor, text in headings if (found := re.match(r"(Table|Figure) \d", text))}

    def link(cell: re.Match[str]) -> str:
        kind = cell[2].rstrip("s")
        numbers = re.sub(
            r"\d", lambda n: f'<a href="#{a}">{n[0]}</a>' if (a := to.get(f"{kind} {n[0]}")) else n[0], cell[3]
        )
        return f"{cell[1]}{cell[2]} {numbers}</td>"

    return re.sub(r"(<td[^>]*>[^<]*?)(Tables?|Figures?) ([\d, -]+)</td>", link, body)


if __name__ == "__main__":  # python -m isce.report report.ipynb report.html
    with record.atomic(Path(sys.argv[2])) as part:
        part.write_text(to_html(Path(sys.argv[1])), encoding="utf-8")

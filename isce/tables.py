"""Records -> the paper's tables, ours beside the paper's; nothing here is computed but means and intervals of records."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import nbformat
import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from isce import paper, record
from isce.data import DATASETS
from isce.evaluate import Evaluation, load_or_evaluate, unpack
from isce.evaluate import label as attack_label
from isce.methods import get
from isce.profiles import Profile

NO_RECORD = "not run"
FIGURES = [
    "figure1_inference_region",
    "figure2_label_regression",
    "figure3_ablation",
    "figure4_embedding",
    "figure5_condition",
    "theory",
    "curves",
    "gradient_masking",
]


def spread(values: Sequence[float], n: int) -> dict[str, Any]:
    """Accuracies in %, one per seed, each over n images -> accuracy, low, high, std, n, seeds.

    One seed: its Wilson 95 % interval over images. Several: their mean and, as `std`, their standard deviation.
    """
    mean, one = sum(values) / len(values), len(values) == 1
    low, high = record.wilson(round(mean * n / 100), n) if one else (math.nan, math.nan)
    std = math.nan if one else math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return {"accuracy": mean, "low": low, "high": high, "std": std, "n": n, "seeds": len(values)}


def measure(evaluations: Sequence[Evaluation], level: int = 0) -> dict[str, Any] | None:
    """One cell: the `spread` of an attack's accuracy over the seeds that have a record, or None where none has."""
    found = [record.find(e.path) for e in evaluations]
    records = [r for r in found if r is not None]
    if not records:
        return None
    results = [r["results"][level] for r in records]
    return spread([r["accuracy"] for r in results], records[0]["n"]) | {
        "level": results[0]["level"],
        "median": (records[0].get("minimal") or {}).get("median"),
        "commit": records[0]["provenance"]["commit"][:10],
    }


def cells(number: int, profile: Profile, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """A table's cells in long form: method, block, backbone, attack, level, accuracy, low, high, std, n, seeds, paper.

    Args:
        number: 1..7. profile: whose records to look for. methods: the rows; the profile's by default.

    Raises:
        ValueError: no such table.
    """
    table = paper.TABLES[int(record.choose("table", number, paper.TABLES))]
    rows = []
    for method in methods if methods is not None else profile.methods:
        for column in table.columns:
            at = column.eps_index or 0
            wanted = [
                profile.evaluation(column.block, column.backbone, method, column.attack, seed) for seed in profile.seeds
            ]
            stated = table.value(method, column.key) if method in table.rows else ""
            cell = {"level": wanted[0].levels[at], "accuracy": math.nan} | (measure(wanted, at) or {})
            where = {"method": method, "block": column.block, "backbone": column.backbone, "attack": column.attack}
            rows.append({**where, "column": column.key, **cell, "paper": stated})
    return pd.DataFrame(rows)


def compute(number: int, profile: Profile, methods: Sequence[str], device: str = "auto", progress: bool = True) -> None:
    """Make the records that a table lacks: train and attack what is found neither in runs/ nor in results/."""
    for method in methods:
        for column in paper.TABLES[number].columns:
            for seed in profile.seeds:
                wanted = profile.evaluation(column.block, column.backbone, method, column.attack, seed)
                if record.find(wanted.path) is None:
                    load_or_evaluate(wanted, device, progress)


def outcomes(profile: Profile, block: str, backbone: str, method: str, attack: str, at: int) -> dict[int, np.ndarray]:
    """Which images stayed right, (n,) booleans for each seed that has a record."""
    found = {
        seed: record.find(profile.evaluation(block, backbone, method, attack, seed).path) for seed in profile.seeds
    }
    return {seed: unpack(r["results"][at]["correct"], r["n"]) for seed, r in found.items() if r is not None}


def attacked(profile: Profile, block: str, backbone: str, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """Every attack of the profile on one network, the paper's and ours, in the long form of `cells`; and `worst`.

    `asked`: false where an attack made for one method meets another. `worst`: the images that stay right under all of the
    method's attacks at a radius, on the seeds that have a record of each (SimBA's level is a step: it does not count).
    """
    rows = []
    for method in methods if methods is not None else profile.methods:
        standing: dict[float, list[dict[int, np.ndarray]]] = {level: [] for level in profile.eps[block]}
        where = {"method": method, "block": block, "backbone": backbone}
        own = profile.attacks(block, backbone, method)
        for attack in profile.attacks(block, backbone):
            wanted = [profile.evaluation(block, backbone, method, attack, seed) for seed in profile.seeds]
            for at, level in enumerate(wanted[0].levels):
                cell = {"level": level, "accuracy": math.nan, "asked": attack in own}
                found = measure(wanted, at) if attack in own else None
                rows.append({**where, "attack": attack, "column": f"{attack}:{at}", **cell, **(found or {})})
                if found and wanted[0].queries == 0 and attack != "clean":
                    standing[level].append(outcomes(profile, block, backbone, method, attack, at))
        for at, (level, per_attack) in enumerate(standing.items()):
            seeds = sorted(set.intersection(*map(set, per_attack))) if per_attack else []
            right = [np.logical_and.reduce([bits[seed] for bits in per_attack]) for seed in seeds]
            cell = {"level": level, "accuracy": math.nan, "asked": True}
            cell |= spread([100 * float(r.mean()) for r in right], len(right[0])) if right else {}
            rows.append({**where, "attack": "worst", "column": f"worst:{at}", **cell})
    return pd.DataFrame(rows)


def recorded(long: pd.DataFrame) -> pd.DataFrame:
    """Only the methods of which at least one cell has a record."""
    return long[long["method"].isin(long.dropna(subset=["accuracy"])["method"].unique())]


def text(cell: Any) -> str:
    """`43.5 [40.5, 46.6]` for one seed, `43.5 ± 1.2` for several, NO_RECORD for none, nothing where none is asked for."""
    if not cell.get("asked", True):
        return ""
    if not math.isfinite(cell["accuracy"]):
        return NO_RECORD
    if cell["seeds"] > 1:
        return f"{cell['accuracy']:.1f} ± {cell['std']:.1f}"
    return f"{cell['accuracy']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]"


def layout(profile: Profile, long: pd.DataFrame, show: Callable[[Any], str] = text) -> pd.DataFrame:
    """The paper's layout: a row per method, columns (data set and network, level, attack); cells as text."""
    names = {}
    for _, cell in long.drop_duplicates("column").iterrows():
        dataset = profile.stand_in[cell["block"]]
        stand_in = f" for {DATASETS[cell['block']].label}" if dataset != cell["block"] else ""
        symbol = "step" if cell["attack"].startswith("simba") else "ε"
        level = "" if cell["attack"] == "clean" else f"{symbol} = {cell['level']:g}"
        what = "worst case" if cell["attack"] == "worst" else attack_label(cell["attack"])
        names[cell["column"]] = (f"{DATASETS[dataset].label}{stand_in}", level, what)
    wide = long.assign(cell=[show(c) for _, c in long.iterrows()]).pivot(
        index="method", columns="column", values="cell"
    )
    wide = wide.loc[list(dict.fromkeys(long["method"])), list(names)]
    wide.columns = pd.MultiIndex.from_tuples(list(names.values()))
    wide.index = pd.Index([get(m).label for m in wide.index], name="method")
    return wide


def stated(number: int) -> pd.DataFrame:
    """What the paper's table holds as far as it could be recovered; the rest says so."""
    table = paper.TABLES[number]
    rows = {get(m).label: [table.value(m, c.key) for c in table.columns] for m in table.rows}
    columns = [
        (DATASETS[c.block].label, "" if c.eps_index is None else f"ε{c.eps_index + 1}", c.label) for c in table.columns
    ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=pd.MultiIndex.from_tuples(columns))


def caption(number: int, profile: Profile, long: pd.DataFrame) -> str:
    """What a reader must know beside the numbers: the data, n, seeds, levels' origin, commits."""
    done = long.dropna(subset=["accuracy"])
    stand_in = (
        f" **Stand-in data: {profile.title}. These are not the paper's data sets.**" if profile.is_stand_in else ""
    )
    counts = sorted({int(v) for v in done["seeds"]}) if len(done) else [0]
    seeds = f"{' or '.join(map(str, counts))} seed{'s' if counts[-1] > 1 else ''}"
    n = sorted({int(v) for v in done.loc[done["attack"] != "clean", "n"]}) if len(done) else []
    commits = ", ".join(sorted({str(c) for c in done["commit"]})) if len(done) else "none"
    return (
        f"**Table {number}.** {paper.TABLES[number].title}{stand_in} Accuracy in %, attacked on n = "
        f"{' or '.join(map(str, n)) or 'no'} test images, {seeds}; in brackets the Wilson 95 % interval"
        f"{' of one seed, ± the standard deviation over several' if counts[-1] > 1 else ''}. "
        f"The levels are ours: the paper's could not be recovered. Records of commit {commits}."
    )


def styled(wide: pd.DataFrame) -> Styler:
    """A table of `layout` for a notebook: the first row of a data set's columns apart, what has no record greyed."""
    lines: list[Any] = [
        {"selector": "th.col_heading", "props": "text-align: center"},
        {"selector": "td", "props": "text-align: right; white-space: nowrap"},
    ]
    style = wide.style.map(lambda v: "color: #999" if v == NO_RECORD else "").set_table_styles(lines)
    return style.apply_index(lambda names: ["font-weight: bold" if n == "I-SCE" else "" for n in names], axis=0)


def sources(profile: Profile) -> pd.DataFrame:
    """Where the numbers of a profile's tables come from: a row per training record."""
    rows = []
    for dataset, backbone in profile.trainings:
        block = next(b for b, d in profile.stand_in.items() if d == dataset)
        for method in profile.methods:
            for seed in profile.seeds:
                spec = profile.spec(block, backbone, method, seed).trained()
                done = record.find(spec.folder / "result.json")
                if done is not None and spec.method == method:
                    source = done["provenance"]
                    where = {"run": done["run_id"], "test accuracy, %": round(done["metrics"]["test_accuracy"], 2)}
                    keys = ("seconds", "device_name", "commit", "dirty", "precision", "finished")
                    rows.append(where | {key: source[key] for key in keys} | {"torch": source["packages"]["torch"]})
    return pd.DataFrame(rows)


def show_figures(profile: Profile, name: str) -> None:
    """Display the pictures of a figure's notebook as the pipeline ran it, or say that it has not been run."""
    from IPython.display import Markdown, display

    path = record.runs_dir() / profile.name / f"{name}.ipynb"
    display(Markdown(f"### {name.replace('_', ' ').capitalize()}"))
    if not path.is_file():
        display(Markdown(f"Not run: `make replicate PROFILE={profile.name}` runs `notebooks/{name}.ipynb`."))
        return
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                display({"image/png": output["data"]["image/png"]}, raw=True)


def summary(profile: Profile, block: str, backbone: str, attacks: Sequence[str]) -> pd.DataFrame:
    """The README's table: methods with records on one network, under a few attacks and in the worst case of all."""
    long = recorded(attacked(profile, block, backbone))
    wanted = long[long["attack"].isin([*attacks, "worst"])]
    order = {name: k for k, name in enumerate([*attacks, "worst"])}
    return layout(profile, wanted.sort_values("attack", key=lambda names: names.map(order), kind="stable"))


def markdown(wide: pd.DataFrame) -> str:
    """A table of `layout` in Markdown; the columns' levels are joined, the data set's name left to the caption."""
    heads = wide.columns.to_frame(index=False).itertuples(index=False)
    flat = wide.set_axis([", ".join(filter(None, [what, level])) for _, level, what in heads], axis=1)
    return str(flat.reset_index().to_markdown(index=False))

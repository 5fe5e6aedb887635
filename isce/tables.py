"""Records -> the paper's tables, ours beside the paper's; nothing here is computed but means, intervals and tests of records."""

import html
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from isce import paper, record
from isce.data import DATASETS
from isce.evaluate import attack_of, parse
from isce.evaluate import label as attack_label
from isce.evaluations import Evaluation, find, find_or_evaluate, find_whole, unpack
from isce.methods import get
from isce.models import BACKBONES
from isce.profiles import Profile
from isce.statistics import LEVEL, best, nested, spread
from isce.train import known

NO_RECORD = "not run"
FORMATS = {"markdown": "md", "latex": "tex", "html": "html"}


def measure(evaluations: Sequence[Evaluation], level: int = 0) -> dict[str, Any] | None:
    """One cell: the `spread` of an attack's accuracy over the seeds that have a record, or None where none has.

    n: the images that all of these seeds have; of_seeds: the seeds that were asked for.
    """
    found = [find(e) for e in evaluations]
    records = [r for r in found if r is not None]
    if not records:
        return None
    (right,) = nested([dict(enumerate(unpack(r["results"][level]["correct"], r["n"]) for r in records))])
    return spread([100 * int(bits.sum()) / len(bits) for bits in right.values()], len(right[0])) | {
        "of_seeds": len(evaluations),
        "level": records[0]["results"][level]["level"],
        "commits": {commit_of(r) for r in records},
    }


def commit_of(done: dict[str, Any]) -> str:
    """The commit that made a record, and whether its tree was changed beyond it, as it is shown."""
    source = done["provenance"]
    return source["commit"][:10] + (" with changes" if source.get("dirty") else "")


def cells(number: int, profile: Profile, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """A table's cells in long form: method, block, backbone, attack, level, accuracy, low, high, std, n, seeds, paper;
    mark (that of `best` among the paper's nine methods, whatever rows are shown) and beside (what the cell adds of the paper's).

    Args:
        number: 1..7. profile: whose records to look for. methods: the rows; the profile's by default.

    Raises:
        ValueError: no such table.
    """
    table = paper.TABLES[int(record.choose("table", number, paper.TABLES))]
    marks = {
        c.key: best({m: outcomes(profile, c.block, c.backbone, m, c.attack, c.eps_index or 0) for m in table.rows})
        for c in table.columns
    }
    rows = []
    for method in methods if methods is not None else profile.methods:
        for column in table.columns:
            at = column.eps_index or 0
            wanted = profile.over_seeds(column.block, column.backbone, method, column.attack)
            stated = table.value(method, column.key) if method in table.rows else ""
            cell = {"level": wanted[0].levels[at], "accuracy": math.nan} | (measure(wanted, at) or {})
            cell["of"] = max(wanted[0].n or 0, profile.n_of(column.block, column.backbone))
            beside = f"paper: {stated:.2f}" if isinstance(stated, float) else "n.r." if stated and table.numbers else ""
            where = {"method": method, "block": column.block, "backbone": column.backbone, "attack": column.attack}
            mark = marks[column.key].get(method, "")
            rows.append({**where, "column": column.key, **cell, "paper": stated, "mark": mark, "beside": beside})
    return pd.DataFrame(rows)


def compute(number: int, profile: Profile, methods: Sequence[str], device: str = "auto") -> None:
    """Make the records that a table lacks: train and attack what is found neither in runs/ nor in results/.

    Methods that are no rows of the profile's own are run as well, on its networks; a network or a method there that the profile
    leaves out (`networks` in config/) is said and left out.
    """
    columns, wanted = paper.TABLES[number].columns, dict[Path, Evaluation]()
    for block, backbone in dict.fromkeys((c.block, c.backbone) for c in columns):
        run = profile.only(",".join(methods), block, backbone) if (block, backbone) in profile.nets else []
        if left := [method for method in methods if method not in run]:
            record.log(f"isce: profile {profile.name} does not run {', '.join(left)} on {block}, {backbone}")
        for column, method in product([c for c in columns if (c.block, c.backbone) == (block, backbone)], run):
            wanted |= {e.path: e for e in profile.over_seeds(block, backbone, method, column.attack)}
    lacking = [evaluation for evaluation in wanted.values() if find_whole(evaluation) is None]
    if lacking:
        untrained = {e.spec.trained().run_id for e in lacking if not known(e.spec)}
        record.log(
            f"isce: of Table {number}'s {len(wanted)} records {len(lacking)} are not there, and {len(untrained)} networks: "
            'making them (the notebook makes none with missing = "show")'
        )
    for evaluation in wanted.values():  # all: what was there is not, once its network is another
        find_or_evaluate(evaluation, device)


def outcomes(
    profile: Profile, block: str, backbone: str, method: str, attack: str, at: int, arm: str = "B"
) -> dict[int, np.ndarray]:
    """Which images stayed right, (n,) booleans for each seed that has a record."""
    return outcomes_of(profile.over_seeds(block, backbone, method, attack, arm), at)


def at_smaller(profile: Profile, block: str, backbone: str, method: str, attack: str) -> list[Evaluation]:
    """`Profile.at_smaller` for each of the network's seeds."""
    return [profile.at_smaller(block, backbone, method, attack, seed) for seed in profile.seeds_of(block, backbone)]


def outcomes_of(evaluations: Sequence[Evaluation], at: int) -> dict[int, np.ndarray]:
    """`outcomes` of attacks as they are given."""
    found = {evaluation.spec.seed: find(evaluation) for evaluation in evaluations}
    return {seed: unpack(r["results"][at]["correct"], r["n"]) for seed, r in found.items() if r is not None}


ByAttack = dict[str, dict[int, np.ndarray]]  # `outcomes` of several attacks


def met(profile: Profile, block: str, backbone: str, method: str, level: float, *, further: bool = False) -> ByAttack:
    """The outcomes of every attack that the method is to meet at a radius; `further`: and, at the smaller one, of those of
    `Profile.optional` that have a record there."""
    asked = {
        attack: outcomes(profile, block, backbone, method, attack, profile.levels(block, attack).index(level))
        for attack in within_radius(profile, block, backbone, method, level)
    }
    if not further or level != min(profile.eps[block]):
        return asked
    more = {a: outcomes_of(at_smaller(profile, block, backbone, method, a), 0) for a in profile.optional}
    return {attack: found for attack, found in more.items() if found} | asked


def met_by(profile: Profile, found: ByAttack) -> dict[int, set[str]]:
    """The seeds that count in a worst case, those which the profile's strongest attack has met, or, where that has no record, the
    attack that met the most; and the attacks that each of them has met. So another record adds an attack to a seed, and
    never takes seeds away."""
    strongest = next(filter(None, (found.get(attack) for attack in parse(profile.strongest))), None)
    seeds = strongest or max(found.values(), key=len, default={})
    return {seed: {attack for attack, right in found.items() if seed in right} for seed in sorted(seeds)}


def survivors(found: ByAttack, seeds: Mapping[int, Collection[str]], random: bool = False) -> dict[int, np.ndarray]:
    """Which images of each seed stayed right under all of the attacks that are named for it, of the images that all have met.

    random: see `worst`.
    """
    used = {(seed, attack): found[attack][seed] for seed, attacks in seeds.items() for attack in attacks}
    n = min(map(len, used.values()), default=0)
    rows = {seed: np.stack([used[seed, attack][:n] for attack in sorted(attacks)]) for seed, attacks in seeds.items()}
    return {seed: worst(right, random) for seed, right in rows.items()}


def worst(right: np.ndarray, random: bool = False) -> np.ndarray:
    """Outcomes (attacks, n) -> (n,), those that all attacks leave right; of a random model, those of the strongest attack: each
    record holds another draw of it, and an image that is right in every one of many draws is rare even without an attack."""
    return np.asarray(right[right.sum(1).argmin()] if random else right.all(0))


def worst_outcomes(
    profile: Profile, block: str, backbone: str, level: float
) -> Callable[[Sequence[str]], list[dict[int, np.ndarray]]]:
    """A function of methods: the `survivors` of each at a radius, to be compared: of the attacks that all of them have met, and of
    those made for the method. It reads a method's records once.

    A seed of a method counts if the profile's strongest is among these (and, of a random model, all that are made for it: the
    strongest does not see through its draws), or all attacks that it is to meet are, or where more could change nothing: no
    image stayed right.
    """
    strongest, common = {*parse(profile.strongest)}, {*profile.common_attacks(block, backbone)}
    found_of = cache(partial(met, profile, block, backbone, level=level, further=True))

    def compare(methods: Sequence[str]) -> list[dict[int, np.ndarray]]:
        found = [found_of(name) for name in methods]
        asked = [{*within_radius(profile, block, backbone, name, level)} for name in methods]
        compared: list[dict[int, np.ndarray]] = [{} for _ in methods]
        for seed in sorted({seed for attacks in found for right in attacks.values() for seed in right}):
            has = [{attack for attack, right in attacks.items() if seed in right} for attacks in found]
            met_by_all = set.intersection(*has)
            for name, attacks, own, wanted, right in zip(methods, found, has, asked, compared, strict=True):
                made = wanted - common - strongest
                if used := own & (met_by_all | made):
                    bits = survivors(attacks, {seed: used}, get(name).random_input)[seed]
                    enough = strongest | (made if get(name).random_input else set())
                    if (strongest and enough <= used) or wanted <= used or not bits.any():
                        right[seed] = bits
        return compared

    return compare


def within_radius(profile: Profile, block: str, backbone: str, method: str, level: float) -> list[str]:
    """The method's attacks at a radius: not SimBA, whose level is a step, nor as-coded attacks, which have no ball."""
    return [
        attack
        for attack in profile.attacks(block, backbone, method)
        if attack_of(attack).kind in ("fixed", "minimal") and level in profile.levels(block, attack)
    ]


def attacked(profile: Profile, block: str, backbone: str, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """Every attack of the profile on one network, the paper's and ours, in the long form of `cells`; and `worst`.

    `asked`: false where an attack made for one method meets another, and where one of `Profile.optional` has no record at
    the smaller radius: such a column is there if any method has one. `worst`: the `survivors` of the attacks recorded; beside
    them how many those are of how many, and that the strongest is missing, where another method has met it.
    """
    rows: list[dict[str, Any]] = []
    seeds = profile.seeds_of(block, backbone)
    optional = {f"{attack}:smaller" for attack in profile.optional}
    for method in methods if methods is not None else profile.methods:
        where = {"method": method, "block": block, "backbone": backbone}
        own = profile.attacks(block, backbone, method)
        for attack in dict.fromkeys([*profile.attacks(block, backbone), *profile.optional]):
            columns: dict[str, tuple[list[Evaluation], int]] = {}
            if attack in profile.optional:
                columns[f"{attack}:smaller"] = at_smaller(profile, block, backbone, method, attack), 0
            if attack in profile.attacks(block, backbone):
                wanted = profile.over_seeds(block, backbone, method, attack) if attack in own else []
                columns |= {f"{attack}:{at}": (wanted, at) for at in range(len(profile.levels(block, attack)))}
            for column, (evaluations, at) in columns.items():
                found = measure(evaluations, at) if evaluations else None
                asked, level = attack in own, profile.levels(block, attack)[at]
                if column in optional:
                    asked, level = found is not None, min(profile.eps[block])
                cell = {"level": level, "accuracy": math.nan, "asked": asked, "beside": ""}
                n = max([profile.n_of(block, backbone), *(e.n or 0 for e in evaluations[:1])])
                cell |= (found or {}) | {"of": n}
                rows.append({**where, "attack": attack, "column": column, **cell})
        for at, level in enumerate(profile.eps[block]):
            found = met(profile, block, backbone, method, level, further=True)
            used = met_by(profile, found)
            right = list(survivors(found, used, get(method).random_input).values())
            counts = sorted({len(attacks) for attacks in used.values()})
            least = spread([100 * float(r.mean()) for r in right], len(right[0])) if right else {"accuracy": math.nan}
            least |= {"of": profile.n_of(block, backbone), "of_seeds": len(seeds), "asked": True, "level": level}
            share = " to ".join(map(str, dict.fromkeys(counts[:1] + counts[-1:])))
            least |= {"beside": f"{share} of {len(found)} attacks" if counts and counts[0] < len(found) else ""}
            every = set.intersection(*used.values()) if used else set()
            rows.append({**where, "attack": "worst", "column": f"worst:{at}", "used": every, **least})
    for strongest in parse(profile.strongest):
        met_it = {row["column"] for row in rows if strongest in row.get("used", ())}
        for row in rows:
            if row["column"] in met_it and row["beside"] and strongest not in row["used"]:
                row["beside"] += f", without {attack_label(strongest)}"
    long = pd.DataFrame(rows).drop(columns="used")
    return long[long.groupby("column")["asked"].transform("any") | ~long["column"].isin(optional)]


def recorded(long: pd.DataFrame) -> pd.DataFrame:
    """Only the methods and data sets of which at least one cell has a record."""
    done = long.dropna(subset=["accuracy"])
    return long[long["method"].isin(done["method"]) & long["block"].isin(done["block"])]


def text(cell: Any) -> str:
    """A cell in Markdown: `43.5 [40.5, 46.6]`, or `43.5 ± 1.2 [40.5, 46.6]` over several seeds; `**43.5**` if it is the best,
    `43.5†` if it is tied with it; ` (n = 1000, 1 of 3 seeds)` behind where that is not what the profile wants, ` (paper: 28.26)`
    or ` (n.r.)`. NO_RECORD for none; nothing where none is asked for.
    """
    if not cell.get("asked", True):
        return ""
    beside = f" ({cell['beside']})" if cell.get("beside") else ""
    if not math.isfinite(cell["accuracy"]):
        return NO_RECORD + beside
    number = f"{cell['accuracy']:.1f}" + (f" ± {cell['std']:.1f}" if cell["seeds"] > 1 else "")
    number = {"best": f"**{number}**", "tied": f"{number}†"}.get(cell.get("mark", ""), number)
    other = [f"n = {cell['n']:.0f}"] if cell["n"] != cell["of"] else []
    other += [f"{cell['seeds']:.0f} of {cell['of_seeds']:.0f} seeds"] if cell["seeds"] < cell["of_seeds"] else []
    unlike = f" ({', '.join(other)})" if other else ""
    return f"{number} [{cell['low']:.1f}, {cell['high']:.1f}]{unlike}{beside}"


def told(long: pd.DataFrame) -> pd.DataFrame:
    """A table whose cells need not repeat what its `caption` says: n and seeds that all of them share."""
    long, done = long.copy(), long.dropna(subset=["accuracy"])
    for found, wanted, part in (("n", "of", done[done["attack"] != "clean"]), ("seeds", "of_seeds", done)):
        if len(part) and part[found].nunique() == 1:
            long.loc[part.index, wanted] = part[found]
    return long


def layout(profile: Profile, long: pd.DataFrame) -> pd.DataFrame:
    """The paper's layout: a row per method, columns (data set and network, level, attack); cells as text."""
    names = {}
    for _, cell in long.drop_duplicates("column").iterrows():
        dataset = profile.stand_in[cell["block"]]
        stand_in = f" for {DATASETS[cell['block']].label}" if dataset != cell["block"] else ""
        worst = cell["attack"] == "worst"
        kind, what = ("", "worst case") if worst else (attack_of(cell["attack"]).kind, attack_label(cell["attack"]))
        symbol = {"queries": "step", "as_coded": "its ε"}.get(kind, "ε")
        level = "" if kind == "clean" else f"{symbol} = {cell['level']:g}"
        names[cell["column"]] = (f"{DATASETS[dataset].label}{stand_in}", level, what)
    wide = long.assign(cell=[text(c) for _, c in long.iterrows()]).pivot(
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
        (DATASETS[c.block].label, "" if c.eps_index is None else f"ε{c.eps_index + 1}", attack_label(c.attack))
        for c in table.columns
    ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=pd.MultiIndex.from_tuples(columns))


def caption(number: int, profile: Profile, long: pd.DataFrame) -> str:
    """What a reader must know beside the numbers, in Markdown: data, n, seeds, marks, the paper's numbers, levels, commits."""
    done = long.dropna(subset=["accuracy"])
    counts = sorted({int(v) for v in done["seeds"]}) if len(done) else [0]
    tried = done[done["attack"] != "clean"]
    n = sorted({int(v) for v in tried["n"]}) if len(done) else []
    most, all_seeds = (int(part[key].max()) if len(part) else 0 for part, key in ((tried, "of"), (done, "of_seeds")))
    commits = ", ".join(sorted(set().union(*done.get("commits", [])))) or "none"
    attacked = f"attacked on n = {' or '.join(map(str, n))} test images" if n else "no attack has a record"
    parts = [f"**Table {number}.** {paper.TABLES[number].title}"]
    if profile.is_stand_in:
        parts.append(f"**Stand-in data: {profile.title}. These are not the paper's data sets.**")
    parts.append(
        f"Accuracy in %, {attacked}"
        + (f" of the {most} that the profile asks for" if n and n[-1] < most else "")
        + f", {' or '.join(map(str, counts))} seed{'s' if counts[-1] > 1 else ''}"
        + (f" of {all_seeds}" if counts[-1] < all_seeds else "")
        + "; in brackets the Wilson 95 % interval over images"
        + ("; ± the standard deviation over seeds, the interval being that of their mean." if counts[-1] > 1 else ".")
    )
    trained = []
    for block, backbone in dict.fromkeys(zip(done["block"], done["backbone"], strict=True)):
        dataset = profile.stand_in[block]
        epochs = profile.spec(block, backbone, "sce").epochs
        trained.append(f"{BACKBONES[backbone]} on {DATASETS[dataset].label} for {epochs} epochs")
    if trained:
        parts.append(f"Trained: {', '.join(dict.fromkeys(trained))}.")
    absent = [get(m).label for m in paper.TABLES[number].rows if m not in set(long["method"])]
    absent += [DATASETS[b].label for b in paper.TABLES[number].blocks if b not in set(long["block"])]
    if absent:
        parts.append(f"Not in this table: {', '.join(absent)}.")
    several = ", above with every seed" if counts[-1] > 1 else ""
    if done["mark"].any():
        parts.append(
            "Bold: significantly above every other of the paper's nine methods (exact sign-flip test on the same images"
            f"{several}; Holm's correction over the column; p < {LEVEL:g}). Where none is, †: the highest, and all that are "
            "not significantly below it. No mark: none of the nine can be told from the highest, or one has no record. "
            "Controls are not ranked."
        )
    else:
        parts.append(
            "No best is marked: at least one of the paper's nine methods has no record, or none can be told from the highest."
        )
    parts.append("Tests and intervals are over images: they do not speak for other trainings.")
    known = ", ".join(get(m).label for m in paper.TABLES[number].numbers)
    parts.append(
        f"In parentheses the paper's number, at its own unknown level: known for {known}; n.r.: {paper.NOT_RECOVERABLE}."
        if known
        else f"The paper's numbers: {paper.NOT_RECOVERABLE}, in any cell."
    )
    if number == 7:
        tail = ", ".join(map(str, paper.TABLE_7_NAMELESS_TAIL))
        parts.append(f"The row before I-SCE's in the paper's CIFAR-10 block has lost its name: {tail}.")
    parts.append(f"The levels are ours: the paper's could not be recovered. Records of commit {commits}.")
    return " ".join(parts)


def styled(wide: pd.DataFrame) -> Styler:
    """A table of `layout` in HTML, as a notebook shows it: I-SCE's name in bold, what has no record greyed."""
    lines: list[Any] = [
        {"selector": "th.col_heading", "props": "text-align: center"},
        {"selector": "td", "props": "text-align: right; white-space: nowrap"},
    ]
    style = wide.style.map(lambda v: "color: #999" if str(v).startswith(NO_RECORD) else "").set_table_styles(lines)
    style = style.format(_html_cell)
    style = style.apply_index(lambda names: ["font-weight: bold" if n == "I-SCE" else "" for n in names], axis=0)
    return record.named(style)


def _to_html(words: object) -> str:
    """The Markdown of a caption or cell, of which only `**bold**` is used here, in HTML."""
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(str(words), quote=False))


# What follows the accuracy in a cell, put in small lines under it: ten columns side by side then fit a page.
_BESIDE = re.compile(r" (\[.*?\]|\(.*?\))")


def _html_cell(words: object) -> str:
    return _BESIDE.sub(r"<br><small>\1</small>", _to_html(words))


_TEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    | {"ε": r"$\varepsilon$", "±": r"$\pm$", "†": r"$^\dagger$"}
)


def _to_tex(words: object) -> str:
    """The same in LaTeX."""
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", str(words).translate(_TEX))


def _tex_cell(words: object) -> str:
    lines = _BESIDE.sub(r"\\\\{\\scriptsize \1}", _to_tex(words))
    return rf"\begin{{tabular}}{{@{{}}c@{{}}}}{lines}\end{{tabular}}" if r"\\" in lines else lines


def render(number: int, profile: Profile, long: pd.DataFrame, format: str = "markdown") -> str:
    """A table to be printed.

    Args:
        number: 1..7. profile: whose records they are. long: `cells` of them, or `recorded` of those.
        format: `markdown`: the caption and a table per data set. `latex`: a table environment for \\input; needs the
            packages booktabs and graphicx. `html`: a page of its own.

    Raises:
        ValueError: no such format.
    """
    record.choose("format", format, FORMATS)
    wide, words = layout(profile, told(long)), caption(number, profile, long)
    if format != "markdown":
        wide.index.name = None  # it would take a line of its own
    if format == "html":
        page = styled(wide).set_caption(_to_html(words)).set_uuid(f"table{number}")  # stays when a cell changes
        lines: list[Any] = [
            {"selector": "caption, th.row_heading", "props": "text-align: left"},
            {"selector": "td, th", "props": "padding: 0.2em 0.5em"},
        ]
        page.set_table_styles(lines, overwrite=False)
        return str(page.to_html(doctype_html=True))
    if format == "latex":
        style = wide.style.format(_tex_cell).format_index(_to_tex, axis=0).format_index(_to_tex, axis=1)
        body = style.to_latex(hrules=True, column_format="l" + "c" * wide.shape[1], multicol_align="c").strip()
        head, rows = body.split("\\midrule\n")
        body = head + "\\midrule\n" + rows.replace(" \\\\\n", " \\\\[3pt]\n")  # air between rows of three lines each
        return "\n".join(
            [
                r"% \usepackage{booktabs, graphicx}",
                r"\begin{table}[htbp]",
                rf"\renewcommand{{\thetable}}{{{number}}}",
                rf"\caption{{{_to_tex(words.removeprefix(f'**Table {number}.** '))}}}\label{{tab:isce-{number}}}",
                r"\centering\smallskip",
                r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%  never enlarged",
                body + "%",
                "}",
                r"\end{table}",
                "",
            ]
        )
    blocks = list(dict.fromkeys(wide.columns.get_level_values(0)))
    parts = [part for b in blocks for part in ([f"{b}:"] if len(blocks) > 1 else []) + [markdown(wide[[b]])]]
    return "\n\n".join([words, *parts]) + "\n"


def save(number: int, profile: Profile, long: pd.DataFrame, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write `render` of each format to folder/table<number>.md, .tex, .html; returns the paths. Raises what `render` does."""
    paths = []
    for name in formats:
        words, path = render(number, profile, long, name), folder / f"table{number}.{FORMATS[name]}"
        with record.atomic(path) as part:
            part.write_text(words, encoding="utf-8")
        paths.append(path)
    return paths


def sources(profile: Profile) -> pd.DataFrame:
    """Where the numbers of a profile's tables come from: a row per training record."""
    rows = {}
    for run in profile.runs:
        spec = profile.spec(*run).trained()
        done = record.find(spec.folder / "result.json")
        if done is not None:
            source = done["provenance"]
            where = {"run": done["run_id"], "test accuracy, %": round(done["metrics"]["test_accuracy"], 2)}
            keys = ("seconds", "device_name", "commit", "dirty", "precision", "finished")
            rows[spec.run_id] = where | {key: source[key] for key in keys} | {"torch": source["packages"]["torch"]}
    return pd.DataFrame(rows.values())


def markdown(wide: pd.DataFrame, *, turned: bool = False) -> str:
    """A table of `layout` in Markdown; the columns' levels are joined, the data set's name left to the caption. `turned`: a row
    per attack, a column per method."""
    heads = wide.columns.to_frame(index=False).itertuples(index=False)
    flat = wide.set_axis([", ".join(filter(None, [what, level])) for _, level, what in heads], axis=1)
    flat = flat.T.rename_axis("attack") if turned else flat
    return str(flat.reset_index().to_markdown(index=False))

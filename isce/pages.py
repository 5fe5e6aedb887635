"""What is written of the committed records: results/<profile>.md and its tables to print, and the tables in the READMEs."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from isce import record, verdicts
from isce.checks import failures, from_record
from isce.data import DATASETS
from isce.evaluate import label
from isce.evaluations import Evaluation, find
from isce.methods import get
from isce.models import BACKBONES
from isce.paper import CLAIMS, COMPARISON
from isce.profiles import Profile, load
from isce.tables import attacked, cells, layout, markdown, measure, recorded, render, save, text, told


def write(name: str) -> None:
    """A profile's tables and verdicts as results/<profile>.md, and its tables to print as results/<profile>/table<N>.tex and
    .html."""
    profile = load(name)
    with record.atomic(record.results_dir() / f"{name}.md") as part:
        part.write_text(document(profile, tables := with_records(profile)), encoding="utf-8")
    for number, long in tables.items():
        save(number, profile, long, record.results_dir() / name, ["latex", "html"])


def with_records(profile: Profile) -> dict[int, pd.DataFrame]:
    """The tables of which at least one cell has a record, in the long form of `cells`, without rows that have none."""
    found = {number: recorded(cells(number, profile)) for number in profile.tables}
    return {number: long for number, long in found.items() if len(long)}


HEADLINE = ("clean", "pgd_un_50", "deepfool_50", "deepfool_50@raw", "autoattack", "worst")


def headline(profile: Profile, block: str, backbone: str) -> str:
    """One network's table in Markdown: columns `HEADLINE` at the larger radius, rows as in the paper, then controls."""
    long = recorded(attacked(profile, block, backbone))
    wanted = told(long[long["attack"].isin(HEADLINE) & long["level"].isin([0.0, profile.eps[block][-1]])])
    return markdown(
        layout(profile, wanted.sort_values("attack", key=lambda names: names.map(HEADLINE.index), kind="stable"))
    )


_SHOWN = ("sce", "isce", "norm_only", "mmc", "at")
GLANCE = (  # the rows of the README's first table
    (CLEAN := "none (all test images)", "clean", _SHOWN),
    ("PGD-50, untargeted", "pgd_un_50", _SHOWN),
    ("DeepFool-50", "deepfool_50", _SHOWN),
    ("DeepFool-50 on logits not normalised", "deepfool_50@raw", ("isce", "norm_only")),
    ("AutoAttack", "autoattack", _SHOWN),
)


def glance(nets: Sequence[tuple[str, str, str]]) -> str:
    """The README's first table in Markdown: a column per (profile, block, backbone), at its larger radius; rows `GLANCE`."""
    columns = {}
    for name, block, backbone in nets:
        profile, found = load(name), {}
        for words, attack, rows in GLANCE:
            at = len(profile.levels(block, attack)) - 1
            for method in rows:
                cell = measure(profile.over_seeds(block, backbone, method, attack), at)
                found[words, get(method).label] = cell or {"accuracy": math.nan}
        tried = [cell for (words, _), cell in found.items() if words != CLEAN]
        n, seeds = (max(cell.get(key, 0) for cell in tried) for key in ("n", "seeds"))
        dataset, level = profile.stand_in[block], profile.eps[block][-1]
        head = f"{DATASETS[dataset].label}, {BACKBONES[backbone]}, {profile.epochs_of(dataset, backbone)} epochs, "
        head += f"ε = {level:g}, n = {n}, {seeds} seed{'s' if seeds > 1 else ''}"
        columns[head] = {
            (words, label): text(cell | {"of": cell.get("n", n) if words == CLEAN else n, "of_seeds": seeds})
            for (words, label), cell in found.items()
        }
    wide = pd.DataFrame(columns).rename_axis(["attack", "method"]).reset_index()
    wide["attack"] = wide["attack"].where(~wide["attack"].duplicated(), "")
    return str(wide.to_markdown(index=False))


def claims(names: Sequence[str]) -> str:
    """The paper's claims in Markdown: their verdicts as written and properly attacked, by profile; theory's stand as written."""
    table = pd.DataFrame()
    for name in names:
        wide = verdicts.side_by_side(verdicts.judge(load(name)))
        written, attacked, theory = (wide[verdicts.HEADS[arm]] for arm in ("B", "C", "-"))
        if table.empty:
            table = wide[["claim", "the paper"]].assign(**{"judged on": [claim.where for claim in CLAIMS.values()]})
        table[f"{name}: as written"] = written.where(written != "", theory)
        table[f"{name}: properly attacked"] = attacked.where(attacked != "", verdicts.NOT_ASKED)
    return str(table.to_markdown(index=False))


MARKED = re.compile(r"(<!-- results: ([\w; ]+?), written[^>]*-->\n).*?(\n<!-- end of results -->)", re.DOTALL)


def update_readme(name: str, readme: Path) -> None:
    """Renew what a README shows of a profile between the markers `<!-- results: profile block backbone, written ...` and
    `<!-- end of results -->`: that network's `headline`; a `glance` of several that stand there with `;` between them; the
    `claims` where `claims profile profile` stands there."""

    def renewed(found: re.Match[str]) -> str:
        start, names, end = found.groups()
        first, *profiles = names.split()
        if first == "claims":
            return f"{start}\n{claims(profiles)}\n{end}" if name in profiles else found[0]
        nets = [(profile, block, net) for profile, block, net in (part.split() for part in names.split(";"))]
        if name not in {profile for profile, _, _ in nets}:
            return found[0]
        shown = glance(nets) if len(nets) > 1 else headline(load(name), *nets[0][1:])
        return f"{start}\n{shown}\n{end}"

    words = MARKED.sub(renewed, readme.read_text(encoding="utf-8"))
    with record.atomic(readme) as part:
        part.write_text(words, encoding="utf-8")


def masking(profile: Profile, block: str, backbone: str) -> pd.DataFrame:
    """The masking checks that have a record, a row each: method, n, eps, the checks that failed of those that apply."""
    rows = []
    for method in profile.methods:
        folder = profile.spec(block, backbone, method, profile.seeds_of(block, backbone)[0]).folder / "checks"
        for path in sorted(
            {path.name: path for root in (record.committed(folder), folder) for path in root.glob("*.json")}.values()
        ):
            if (done := record.read_json(path)) is not None:
                found = [check for check in from_record(done) if check.passed is not None]
                failed = f"{', '.join(failures(found)) or 'none'} (of {len(found)})"
                given = done["parameters"]
                rows.append({"method": get(method).label, "n": given["n"], "ε": given["eps"], "failed": failed})
    return pd.DataFrame(rows)


def standing(profile: Profile) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What of a profile has been run: by its `parts`, how many networks and attacks have a record; and what has none, a row for
    methods and seeds that lack the same."""
    counts, gaps = [], []
    for part, asked in profile.parts().items():
        networks = {e.spec.trained().folder for e in asked}
        trained = {folder for folder in networks if record.find(folder / "result.json") is not None}
        found = [(e, find(e)) for e in asked]
        done = [(e, r) for e, r in found if r is not None]
        row = {"what": part, "networks trained": f"{len(trained)} of {len(networks)}"}
        row |= {"attacks with a record": f"{len(done)} of {len(asked)}"}
        counts.append(row | {"of them on all images asked for": sum(r["evaluation"]["n"] >= e.n for e, r in done)})
        lacking: dict[str, dict[str, list[int]]] = {}  # what, which methods, which seeds
        for method, seed in dict.fromkeys((e.spec.method, e.spec.seed) for e in asked):
            own = [(e, r) for e, r in found if (e.spec.method, e.spec.seed) == (method, seed)]
            if what := _lacks(own, trained):
                lacking.setdefault(what, {}).setdefault(method, []).append(seed)
        for what, seeds_of in lacking.items():
            for seeds in dict.fromkeys(map(tuple, seeds_of.values())):
                rows = ", ".join(get(method).label for method, own in seeds_of.items() if tuple(own) == seeds)
                gaps.append(
                    {"what": part, "methods": rows, "seeds": ", ".join(map(str, seeds)), "without a record": what}
                )
    return pd.DataFrame(counts), pd.DataFrame(gaps)


def _lacks(own: Sequence[tuple[Evaluation, dict[str, Any] | None]], trained: Collection[Path]) -> str:
    """Which of these attacks, each with its record, have none, in words; "" where all have one. trained: networks' folders."""
    if any(r is not None for _, r in own):
        names = ["clean images" if e.attack == "clean" else label(e.attack) for e, r in own if r is None]
        return ", ".join(dict.fromkeys(names))
    nets = {e.spec.trained().folder for e, _ in own}
    waiting = len(nets.difference(trained))
    if waiting == len(nets):
        return "everything, the training too"
    return "every attack" + (f", and {waiting} of {len(nets)} trainings" if waiting else "")


ABBREVIATIONS = (
    "**How to read the columns.** *PGD un/tar 50*: untargeted or targeted, 50 steps; *margin*, *distance*: with that objective in "
    "cross-entropy's place. *DF 50*: DeepFool, 50 steps. *FAB-T*, *APGD*: AutoAttack's, alone. Without more an attack sees the "
    "network's outputs; *on raw*: the logits before their normalisation; *on x20*: outputs times 20; *on transfer*: an SCE network "
    "of the same seed; *on eot20*: the mean of 20 random passes. *Worst case*: images that withstand all these attacks at the radius "
    "(on a random model: the strongest), with the seeds that AutoAttack has met, each under all that it has met; beside it, how many."
)


def document(profile: Profile, tables: Mapping[int, pd.DataFrame]) -> str:
    """A profile's tables, as from `with_records`, and its verdicts in Markdown: for readers without a notebook."""
    judged = verdicts.judge(profile)
    parts = [f"# Records of profile {profile.name}: {profile.title}"]
    parts += ["Written by `make results`; do not edit. Methods and data sets without a record are left out of a table."]
    parts += ["## Verdicts", "Rules, numbers and tests: [the ledger of claims](#the-ledger-of-claims) below."]
    parts += [str(verdicts.side_by_side(judged).to_markdown(index=False))]
    why = judged[judged["verdict"] == verdicts.NOT_ASKED]
    parts += [
        f"*{verdicts.NOT_ASKED.capitalize()}*: "
        + "; ".join(f"{c}, {a}: {w}" for c, a, w in zip(why["claim"], why["arm"], why["measured"], strict=True))
        + "."
    ]
    parts += [ABBREVIATIONS, "## The paper's tables"]
    parts += [render(number, profile, long).rstrip() for number, long in tables.items()]
    parts.append("## Every attack, network by network")
    for block, backbone in profile.nets:
        network, shown = f"{BACKBONES[backbone]}, {profile.where(block)}", recorded(attacked(profile, block, backbone))
        if len(shown):
            parts.append(f"**Every attack on {network}**, the worst case at each radius last.")
            parts.append(markdown(layout(profile, shown), turned=True))
        if len(found := masking(profile, block, backbone)):
            parts.append(f"**Is it gradient masking?** Checks of `notebooks/gradient_masking.ipynb` on {network}.")
            parts.append(str(found.to_markdown(index=False)))
    counts, gaps = standing(profile)
    parts += ["## What has been run, and what has not", str(counts.to_markdown(index=False))]
    if len(gaps):
        command = f"`make replicate PROFILE={profile.name}`"
        parts.append(
            f"`benchmarks/stages.py --profile {profile.name}` makes what has no record, or any part of it; {command} also the attacks "
            "that have one here but no rows per image in runs/."
        )
        parts.append(str(gaps.to_markdown(index=False)))
    ledger = judged[~judged["verdict"].isin([verdicts.OPEN, verdicts.NOT_ASKED])]
    parts += ["## The ledger of claims", COMPARISON, str(ledger.to_markdown(index=False))]
    return "\n\n".join(parts) + "\n"

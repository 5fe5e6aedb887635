"""What is committed of a profile: its records under results/, its tables in Markdown, LaTeX and HTML, its verdicts, the README's table."""

import itertools
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from isce import record, verdicts
from isce.checks import failures, from_record
from isce.data import DATASETS
from isce.evaluate import Evaluation, find, of_fewer
from isce.methods import get
from isce.paper import ABLATION, ABLATION_ATTACKS, COMPARISON
from isce.profiles import Profile, load
from isce.tables import attacked, cells, layout, markdown, recorded, render, save, summary

WEIGHTS_AT_MOST = 30_000_000  # bytes, of all networks in results/


def publish(name: str) -> list[str]:
    """Copy a profile's records from runs/ to results/ (small JSON, no images) and the first seed's float16 weights beside
    them (`share_weights`), so that `load_or_train` need not train; write its tables as results/<profile>.md, and to print as
    results/<profile>/table<N>.tex and .html. A record there of fewer images than its successor's goes, unless another profile
    asks for it. Returns the records' paths under results/."""
    profile, wanted = load(name), []
    others = [load(path.stem) for path in record.config_dir().glob("*.yaml") if path.stem != name]
    kept = {e.path for other in others for run in other.runs for e in other.evaluations(*run)}
    for run in profile.runs:
        spec = profile.spec(*run)
        wanted.append(spec.trained().folder / "result.json")
        wanted += [latest(evaluation, kept) for evaluation in profile.evaluations(*run)]
        wanted += [*sorted(spec.folder.glob("checks/*.json")), spec.folder / "theory.json", spec.folder / "curves.json"]
    wanted += [path for e in profile.arm_a() for path in (e.spec.folder / "result.json", e.path)]
    weighty = {path for path in wanted if path.name == "result.json"}
    for block, backbone in ABLATION:
        for attack in ABLATION_ATTACKS:
            for e in itertools.chain(*profile.ablation(block, backbone, attack)):
                wanted += [e.spec.folder / "result.json", e.path]
    for dataset in dict.fromkeys(profile.stand_in.values()):  # Figure 4's measures of separation
        for path in sorted(record.runs_dir().glob(f"{dataset}-*-3d-seed*/separation.json")):
            wanted += [path, path.with_name("result.json")]
            weighty.add(path.with_name("result.json"))
    copied = []
    for path in dict.fromkeys(wanted):
        content = record.read_json(path)
        if content is None:
            continue
        target = record.results_dir() / path.relative_to(record.runs_dir())
        record.write_json(target, content)
        copied.append(str(target.relative_to(record.results_dir())))
        if path in weighty and content["spec"]["seed"] == profile.seeds[0]:
            share_weights(path.with_name("model.safetensors"), target)
    with record.atomic(record.results_dir() / f"{name}.md") as part:
        part.write_text(document(profile, tables := with_records(profile)))
    for number, long in tables.items():
        save(number, profile, long, record.results_dir() / name, ["latex", "html"])
    return copied


def share_weights(weights: Path, target: Path) -> None:
    """Copy the weights of a training beside its record in results/, `target`. Of one network and method with several lengths
    of training the longest alone has them there; what would not fit into `WEIGHTS_AT_MOST` is left out, and said so."""

    def but_epochs(path: Path) -> tuple[dict[str, Any], int]:
        spec = (record.read_json(path) or {"spec": {"epochs": 0}})["spec"]
        return {key: value for key, value in spec.items() if key != "epochs"}, spec["epochs"]

    what, epochs = but_epochs(target)
    target.with_name(weights.name).unlink(missing_ok=True)
    size = weights.stat().st_size
    for other in record.results_dir().glob(f"*/{weights.name}"):
        same, length = but_epochs(other.with_name("result.json"))
        if same == what and length > epochs:
            return
        if same == what:
            other.unlink()
        else:
            size += other.stat().st_size
    if size > WEIGHTS_AT_MOST:
        record.log(f"isce: {target.parent.name}: no room for its weights, {WEIGHTS_AT_MOST / 1e6:g} MB are full")
        return
    with record.atomic(target.with_name(weights.name)) as part:
        shutil.copyfile(weights, part)


def latest(evaluation: Evaluation, kept: Collection[Path]) -> Path:
    """Where runs/ holds the record of an evaluation, or that of the most of its images; what it supersedes in results/ goes,
    but for what other profiles ask for, `kept`."""
    done = find(evaluation) or {}
    for fewer in of_fewer(evaluation, record.results_dir()):
        path = evaluation.path.with_name(f"{fewer['run_id']}.json")
        if fewer["n"] < done["n"] and path not in kept:
            (record.results_dir() / path.relative_to(record.runs_dir())).unlink()
    return evaluation.path.with_name(f"{done.get('run_id', evaluation.path.stem)}.json")


def with_records(profile: Profile) -> dict[int, pd.DataFrame]:
    """The tables of which at least one cell has a record, in the long form of `cells`, without rows that have none."""
    found = {number: recorded(cells(number, profile)) for number in profile.tables}
    return {number: long for number, long in found.items() if len(long)}


HEADLINE = (
    "clean",
    "pgd_un_50",
    "deepfool_50",
    "deepfool_50@raw",
    "autoattack",
)  # the README's columns, at level 2


def headline(profile: Profile, block: str, backbone: str) -> str:
    """One of the README's tables in Markdown: the larger radius alone, rows as in the paper, then controls."""
    wide = summary(profile, block, backbone, HEADLINE)
    level = f"ε = {profile.eps[block][1]:g}"
    return markdown(wide.loc[:, [column for column in wide.columns if column[1] in ("", level)]])


MARKED = re.compile(r"(<!-- results: (\w+) (\w+) (\w+)[^>]*-->\n).*?(\n<!-- end of results -->)", re.DOTALL)


def update_readme(name: str, readme: Path) -> None:
    """Put `headline` of a profile between the README's markers, `<!-- results: profile block backbone`, that name it."""

    def renewed(found: re.Match[str]) -> str:
        start, profile, block, backbone, end = found.groups()
        return f"{start}\n{headline(load(name), block, backbone)}\n{end}" if profile == name else found[0]

    text = MARKED.sub(renewed, readme.read_text())
    with record.atomic(readme) as part:
        part.write_text(text)


def masking(profile: Profile, block: str, backbone: str) -> pd.DataFrame:
    """The masking checks that have a record, a row each: method, n, eps, the checks that failed of those that apply."""
    rows = []
    for method in profile.methods:
        folder = profile.spec(block, backbone, method, profile.seeds[0]).folder / "checks"
        committed = record.results_dir() / folder.relative_to(record.runs_dir())
        for path in sorted({path.name: path for root in (committed, folder) for path in root.glob("*.json")}.values()):
            if (done := record.read_json(path)) is not None:
                found = [check for check in from_record(done) if check.passed is not None]
                failed = f"{', '.join(failures(found)) or 'none'} (of {len(found)})"
                given = done["parameters"]
                rows.append({"method": get(method).label, "n": given["n"], "ε": given["eps"], "failed": failed})
    return pd.DataFrame(rows)


def document(profile: Profile, tables: Mapping[int, pd.DataFrame]) -> str:
    """A profile's tables, as from `with_records`, and its verdicts in Markdown: for readers without a notebook."""
    parts = [f"# Records of profile {profile.name}: {profile.title}"]
    parts += ["Written by `make results`; do not edit. Methods and data sets without a record are left out of a table."]
    parts += [render(number, profile, long).rstrip() for number, long in tables.items()]
    for block, backbone in profile.nets:
        shown = recorded(attacked(profile, block, backbone))
        if len(shown):
            dataset = DATASETS[profile.stand_in[block]].label
            parts.append(f"**Every attack on {backbone}, {dataset}**, worst case of all at the same radius last.")
            parts.append(markdown(layout(profile, shown)))
        if len(found := masking(profile, block, backbone)):
            parts.append(
                f"**Is it gradient masking?** Checks of `notebooks/gradient_masking.ipynb` on {backbone}, {block}."
            )
            parts.append(str(found.to_markdown(index=False)))
    judged = verdicts.judge(profile)
    ledger = judged[judged["verdict"] != verdicts.OPEN]
    parts += ["## Verdicts", str(verdicts.side_by_side(judged).to_markdown(index=False))]
    parts += ["## The ledger of claims", COMPARISON, str(ledger.to_markdown(index=False))]
    return "\n\n".join(parts) + "\n"

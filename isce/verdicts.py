"""For each claim of the paper a verdict computed from records: its rule, what was measured, stands, falls or mixed."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.io.formats.style import Styler
from scipy.stats import chi2_contingency

from isce import paper, record, theory
from isce.evaluate import Evaluation
from isce.methods import METHODS, get
from isce.profiles import Profile
from isce.tables import outcomes

STANDS, FALLS, MIXED, OPEN = "stands", "falls", "mixed", "no record"
LEVEL = 0.05  # of every paired test
COLORS = {STANDS: "#d7efdc", FALLS: "#f6d5d2", MIXED: "#fbecc8", OPEN: "#eeeeee"}


@dataclass(frozen=True)
class Duel:
    """I-SCE against a competitor on the same images: the difference in points, and which of them is significantly better."""

    points: float
    winner: int  # 1: I-SCE, -1: the competitor, 0: no significant difference
    block: str
    attack: str


def duels(
    profile: Profile,
    tables: Iterable[int],
    rivals: Iterable[str],
    *,
    attacks: str = "",
    surface: str = "",
    one: str = "isce",
) -> list[Duel]:
    """`one` against each rival in every attack column of these tables whose records exist; `attacks`: of this beginning."""
    found = []
    for number in set(tables) & set(profile.tables):
        for column in paper.TABLES[number].columns:
            if column.kind != "attack" or not column.attack.startswith(attacks):
                continue
            look = partial(outcomes, profile, column.block, column.backbone)
            ours = look(one, column.attack + surface, column.eps_index or 0)
            for rival in rivals:
                theirs = look(rival, column.attack + surface, column.eps_index or 0)
                if pair := paired(ours, theirs):
                    points, sure = 100 * float(pair[0].mean() - pair[1].mean()), record.mcnemar(*pair) < LEVEL
                    found.append(Duel(points, int(np.sign(points)) if sure else 0, column.block, column.attack))
    return found


def paired(ours: dict[int, np.ndarray], theirs: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """Two methods' outcomes on the same images and seeds, one after the other; None where they share no seed."""
    seeds = sorted(set(ours) & set(theirs))
    return (np.concatenate([ours[k] for k in seeds]), np.concatenate([theirs[k] for k in seeds])) if seeds else None


def tally(found: list[Duel], against: str = "rivals") -> str:
    won, lost = sum(d.winner > 0 for d in found), sum(d.winner < 0 for d in found)
    large = sum(d.points > 50 for d in found)
    return (
        f"against {against}: significantly better in {won}, worse in {lost}, neither in {len(found) - won - lost} of "
        f"{len(found)} comparisons; more than 50 points better in {large}"
    )


def most(found: list[Duel]) -> str:
    """Stands: better in more than half. Falls: better in less than a quarter, or worse more often than better."""
    if not found:
        return OPEN
    won, lost = (sum(d.winner == sign for d in found) / len(found) for sign in (1, -1))
    return STANDS if won > 0.5 else FALLS if won < 0.25 or lost > won else MIXED


RIVALS = [name for name in METHODS if name != "isce"]
MOST = "I-SCE significantly better in over half of (column, method): stands; in under a quarter, or worse more often: falls"


def judge(profile: Profile) -> pd.DataFrame:
    """A row per claim: claim, sentence, rule, measured, verdict. From records of `profile`, and closed forms (C10-C12)."""
    verdicts: dict[str, tuple[str, str, str]] = {}

    def compare(claim: str, tables: Iterable[int], rivals: list[str] = RIVALS) -> None:
        found = duels(profile, tables, rivals)
        names = "the other eight" if rivals == RIVALS else ", ".join(get(r).label for r in rivals)
        verdicts[claim] = (MOST, tally(found, names) if found else "", most(found))

    compare("C1", [1, 2])
    compare("C4", [4])
    compare("C5", [5, 6])
    compare("C13", range(1, 8), ["arcface"])

    points = duels(profile, [1], ["sce"], attacks="pgd_un_50")
    verdicts["C2"] = (
        "at least 50 points above SCE at one of our levels: stands; not significantly better at any: falls",
        "; ".join(f"{d.points:+.1f} points" for d in points),
        OPEN
        if not points
        else STANDS
        if max(d.points for d in points) >= 50
        else MIXED
        if any(d.winner > 0 for d in points)
        else FALLS,
    )
    found = duels(profile, [3], RIVALS)
    raw = duels(profile, [3, 7], ["sce"], attacks="deepfool_50", surface="@raw")
    better = [d.winner > 0 for d in found]
    verdicts["C3"] = (
        "significantly better in every comparison: stands; in over half: mixed; else falls",
        tally(found, "the other eight") + (f"; on raw logits {tally(raw, 'SCE')}" if raw else "") if found else "",
        OPEN if not found else STANDS if all(better) else MIXED if sum(better) > len(better) / 2 else FALLS,
    )
    verdicts["C6"] = _adversarial_training(profile)
    verdicts["C7"] = _ablation(profile)
    verdicts["C8"] = _separation(profile)
    verdicts["C9"] = _averages(profile)
    verdicts |= _theory()
    rows = []
    for claim in paper.CLAIMS.values():
        rule, measured, verdict = verdicts[claim.id]
        rows.append(
            {"claim": claim.id, "the paper": claim.sentence, "rule": rule, "measured": measured, "verdict": verdict}
        )
    return pd.DataFrame(rows)


def _adversarial_training(profile: Profile) -> tuple[str, str, str]:
    rule = "CIFAR-10: AT significantly below SCE on clean images, and below I-SCE under PGD-50: both stands, one mixed, none falls"
    if 2 not in profile.tables:
        return rule, "", OPEN
    clean = [outcomes(profile, "cifar10", "resnet32", m, "clean", 0) for m in ("at", "sce")]
    found = duels(profile, [2], ["at"], attacks="pgd_un_50")
    pair = paired(*clean)
    if pair is None or not found:
        return rule, "", OPEN
    loss = 100 * float(pair[0].mean() - pair[1].mean())
    first = loss < 0 and record.mcnemar(*pair) < LEVEL
    second = all(d.winner > 0 for d in found)
    measured = f"clean {loss:+.1f} points to SCE; I-SCE {', '.join(f'{d.points:+.1f}' for d in found)} points to AT under PGD-50"
    return rule, measured, STANDS if first and second else MIXED if first or second else FALLS


def _ablation(profile: Profile) -> tuple[str, str, str]:
    rule = "chi-square test that one accuracy holds for all (s, m), on validation images: p < 0.05 in over half of the panels stands, in none falls"
    s, m, n = (profile.figures[key] for key in ("ablation_s", "ablation_m", "ablation_n"))
    found = []
    for block, backbone in (("mnist", "lenet5"), ("cifar10", "cnn8")):
        for attack in ("deepfool_50", "pgd_un_50"):
            grid = [profile.spec(block, backbone, "isce", options={"s": a, "m": b}) for a in s for b in m]
            wanted = [Evaluation(spec, attack, (profile.eps[block][0],), n, split="validation") for spec in grid]
            records = [record.find(e.path) for e in wanted]
            right = [round(r["results"][0]["accuracy"] * r["n"] / 100) for r in records if r is not None]
            if len(right) == len(grid) > 1:
                table = np.array([right, [n - k for k in right]])
                p = float(chi2_contingency(table).pvalue) if (table.sum(1) > 0).all() else 1.0
                found.append(
                    (f"{block} {attack}: {100 * min(right) / n:.1f} to {100 * max(right) / n:.1f} %, p = {p:.2g}", p)
                )
    if not found:
        return rule, "", OPEN
    significant = sum(p < LEVEL for _, p in found)
    verdict = STANDS if significant > len(found) / 2 else MIXED if significant else FALLS
    return rule, "; ".join(words for words, _ in found), verdict


def _separation(profile: Profile) -> tuple[str, str, str]:
    rule = "3-D embedding of MNIST: I-SCE's silhouettes (Euclidean, cosine) and nearest-mean accuracy above SCE's: all stands, some mixed, none falls"
    dataset, found = profile.stand_in["mnist"], {}
    for method in ("isce", "sce"):
        for root in (record.results_dir(), record.runs_dir()):
            for path in sorted(root.glob(f"{dataset}-lenet5-{method}-3d-seed0-*/separation.json")):
                found[method] = record.read_json(path)
    ours, theirs = found.get("isce"), found.get("sce")
    if ours is None or theirs is None:
        return rule, "", OPEN
    keys = ("euclidean", "cosine", "nearest_mean")
    better = [ours[key] > theirs[key] for key in keys]
    measured = "; ".join(f"{key}: I-SCE {ours[key]:.2f}, SCE {theirs[key]:.2f}" for key in keys)
    return rule, measured, STANDS if all(better) else MIXED if any(better) else FALLS


def _averages(profile: Profile) -> tuple[str, str, str]:
    rule = "mean f_i within 0.05 of 0.97 and mean sum within 0.5 of 8 on every network: stands"
    found = {}
    for block, backbone in profile.nets:
        clean = record.find(profile.evaluation(block, backbone, "isce", "clean").path)
        if clean is not None:
            found[f"{block}/{backbone}"] = clean["outputs"]
    if not found:
        return rule, "", OPEN
    good = [abs(o["label_output"] - 0.97) < 0.05 and abs(o["others_exp_sum"] - 8) < 0.5 for o in found.values()]
    measured = "; ".join(f"{k}: f_i {o['label_output']:.3f}, sum {o['others_exp_sum']:.2f}" for k, o in found.items())
    return rule, measured, STANDS if all(good) else MIXED if any(good) else FALLS


def _theory() -> dict[str, tuple[str, str, str]]:
    s, m = (t.double() for t in (torch.linspace(1, 2, 101), torch.linspace(0.001, 0.1, 100)))
    inside = bool((theory.z(s.unsqueeze(1), m) > 0).all())
    low, high = theory.positive_margins(torch.tensor(6.0, dtype=torch.float64))
    f, f_adv = theory.boundary_pairs(20_000)
    index = torch.zeros(len(f), dtype=torch.int64)
    sce = theory.L(f, f_adv, index)
    longer = 100 * float((theory.L_I(f, f_adv, index) > sce).double().mean())
    wide, wide_adv = torch.tensor([[10.0] + [0.0] * 9]).double(), torch.tensor([[5.0, 5.0] + [0.0] * 8]).double()
    zero = torch.zeros(1, dtype=torch.int64)
    counter = float(theory.L_I(wide, wide_adv, zero) - theory.L(wide, wide_adv, zero))
    return {
        "C10": (
            "z > 0 at f_i = 0.97, sum = 8 for every s > 1, m > 0: stands; for the plotted s <= 2, m <= 0.1 alone: mixed",
            f"z > 0 on the whole grid s in [1, 2], m in (0, 0.1]: {inside}; at s = 6 only for m between {float(low):.2f} and {float(high):.2f}",
            MIXED if inside and float(high) < 0.1 else STANDS if inside else FALLS,
        ),
        "C11": (
            "L_I > L for every pair (x, x + delta) of unit logits that just misleads, and for unnormalised logits: stands; for some: mixed",
            f"unit logits: in {longer:.1f} % of {len(f)} random pairs; logits 10 falling to a tie at 5: L_I - L = {counter:+.4f}",
            STANDS if longer == 100 and counter > 0 else MIXED if longer > 0 else FALLS,
        ),
        "C12": (
            "P_I > P for the same logits (equation 12) at s = 1, m > 0 and all logits: stands, as an inequality",
            "P_I > P iff (s - 1) f_i + m > 0: true at s = 1 for every f; but a constant added to the right class's logit moves "
            "neither the decision nor the optimum on the sphere, so a lower loss is no better defence (see the duels above)",
            STANDS if bool(theory.loss_is_lower(torch.linspace(-1, 1, 201)).all()) else FALLS,
        ),
    }


def styled(judged: pd.DataFrame) -> Styler:
    """The verdicts for a notebook, coloured."""
    lines: list[Any] = [{"selector": "td, th", "props": "text-align: left; vertical-align: top; white-space: normal"}]
    return (
        judged.style.hide(axis="index")
        .map(lambda v: f"background: {COLORS[v]}; font-weight: bold", subset=["verdict"])
        .set_table_styles(lines)
    )

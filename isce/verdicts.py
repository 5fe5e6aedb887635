"""The ledger of claims: for each claim of the paper and each arm, a verdict computed from records by the rule in `isce.paper`.

Arm A: trained and attacked as coded (isce.as_coded). Arm B: as written. Arm C: B's models, worst case over all attacks.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.io.formats.style import Styler
from scipy.stats import chi2_contingency

from isce import methods, paper, record, theory
from isce.evaluate import label, parse
from isce.methods import METHODS
from isce.profiles import Profile
from isce.tables import LEVEL, nested, outcomes, p_below, worst_outcomes

STANDS, PART, FAILS, OPEN = "stands", "stands in part", "fails", "cannot be tested"
COLORS = {STANDS: "#d7efdc", FAILS: "#f6d5d2", PART: "#fbecc8", OPEN: "#eeeeee"}
ARMS = {"A": "A, as coded", "B": "B, as written", "C": "C, properly attacked"}
HEADS = ARMS | {"-": "no arm: theory"}
MCNEMAR = f"exact McNemar on the same images, p < {LEVEL}"
NO_RECORD = "no record in this profile"
WHY_NOT = {
    ("C4", "A"): "the script has no SimBA",
    ("C5", "A"): "the script has ResNet-32 alone",
    ("C6", "A"): "the script has no AT",
    ("C7", "A"): "Figure 3's grid is trained as written",
    ("C7", "C"): "Figure 3 attacks as the paper does",
    ("C8", "A"): "the script has no 3-D embedding",
    ("C8", "C"): "a claim about clean images",
    ("C9", "C"): "a claim about clean images",
    ("C13", "A"): "the script has no ArcFace",
}


@dataclass(frozen=True)
class Finding:
    """What a rule finds in the records: verdict, numbers, how many images and seeds they are of, and the test."""

    verdict: str
    measured: str = NO_RECORD
    n: str = ""
    test: str = ""


@dataclass(frozen=True)
class Case:
    """Where methods are compared: `outcomes` of a method are its images that stayed right, (n,) booleans by seed."""

    name: str
    outcomes: Callable[[str], dict[int, np.ndarray]]


def cases(profile: Profile, arm: str, numbers: Sequence[int], attacks: str = "") -> list[Case]:
    """The cases of an arm for the columns of these tables whose attack begins with `attacks`; all but clean if ""."""
    columns = [c for n in numbers if n in profile.tables for c in paper.TABLES[n].columns]
    nets = list(dict.fromkeys((c.block, c.backbone) for c in columns))
    if arm == "A":
        return [case for block, net in nets for case in _as_coded(profile, block, net, attacks)]
    if arm == "C" and attacks != "clean":
        return [
            Case(f"{block} {net}, ε = {level:g}", partial(worst_outcomes, profile, block, net, level=level))
            for block, net in nets
            for level in profile.eps[block]
        ]
    wanted = [c for c in columns if (c.attack.startswith(attacks) if attacks else c.kind == "attack")]
    return [
        Case(c.key, partial(outcomes, profile, c.block, c.backbone, attack=c.attack, at=c.eps_index or 0))
        for c in wanted
    ]


def _as_coded(profile: Profile, block: str, net: str, attacks: str) -> list[Case]:
    """Arm A's counterparts of `attacks` on a network; "proper" are the attacks on its models that are not the script's."""
    if block not in profile.as_coded.get("blocks", []) or net != "resnet32":
        return []
    names = parse("clean," + profile.as_coded["attacks"])
    chosen = {
        "clean": names[:1],
        "pgd": ["as_coded_5", "as_coded_50"],
        "pgd_un_50": ["as_coded_50"],
        "deepfool": ["as_coded_df_10", "as_coded_df_50"],
        "proper": [name for name in names[1:] if not name.startswith("as_coded")],
    }[attacks]
    return [
        Case(
            f"{block}, {label(name)} at {level:g}", partial(outcomes, profile, block, net, attack=name, at=at, arm="A")
        )
        for name in names
        if name in chosen
        for at, level in enumerate(profile.levels(block, name))
    ]


@dataclass(frozen=True)
class Duel:
    """One method against another on the same images: accuracies in %, and which is significantly better (1, -1 or 0)."""

    case: str
    rival: str
    ours: float
    theirs: float
    winner: int
    n: int
    seeds: int

    @property
    def points(self) -> float:
        return self.ours - self.theirs


def duels(found: Sequence[Case], rivals: Sequence[str], one: str = "isce") -> list[Duel]:
    """`one` against each rival in each case, on the seeds that both have; pairs without a record are left out."""
    fought = []
    for case in found:
        own = case.outcomes(one)
        for rival in rivals if own else []:
            ours, theirs = nested([own, case.outcomes(rival)])
            if seeds := sorted(set(ours) & set(theirs)):
                a, b = (np.concatenate([bits[seed] for seed in seeds]) for bits in (ours, theirs))
                winner = int(p_below(ours, theirs) < LEVEL) - int(p_below(theirs, ours) < LEVEL)
                n = len(ours[seeds[0]])
                means = 100 * float(a.mean()), 100 * float(b.mean())
                fought.append(Duel(case.name, rival, *means, winner, n, len(seeds)))
    return fought


def share(flags: Iterable[bool]) -> float:
    return float(np.mean(list(flags)))


def grade(flags: Iterable[bool]) -> str:
    """Stands where all hold, fails where none does."""
    flags = list(flags)
    return STANDS if all(flags) else PART if any(flags) else FAILS


def most(found: Sequence[Duel]) -> str:
    """Stands: won over half. Fails: won under a quarter, or fewer than lost."""
    won, lost = share(d.winner > 0 for d in found), share(d.winner < 0 for d in found)
    return FAILS if won < 0.25 or lost > won else STANDS if won > 0.5 else PART


def tally(found: Sequence[Duel]) -> str:
    won, lost = sum(d.winner > 0 for d in found), sum(d.winner < 0 for d in found)
    ours, theirs = np.mean([d.ours for d in found]), np.mean([d.theirs for d in found])
    large, points = sum(d.points > 50 for d in found), [d.points for d in found]
    return (
        f"won {won}, lost {lost} of {len(found)} comparisons, {large} by more than 50 points; on average I-SCE {ours:.1f} %, "
        f"others {theirs:.1f} %; from {min(points):+.1f} to {max(points):+.1f} points"
    )


def compared(
    profile: Profile, arm: str, numbers: Sequence[int], attacks: str, rivals: Sequence[str]
) -> tuple[list[Duel], str]:
    """I-SCE against each rival in each case of these tables that has records; and in words what has none, "" if nothing."""
    wanted = cases(profile, arm, numbers, attacks)
    found, gaps = duels(wanted, rivals), []
    met = [methods.get(name).label for name in rivals if any(d.rival == name for d in found)]
    if len(met) < len(rivals):
        gaps.append(f"of the {len(rivals)} others only {', '.join(met)} could be compared")
    if len(found) < len(wanted) * len(rivals):
        gaps.append(f"{len(found)} of {len(wanted) * len(rivals)} comparisons have records")
    if absent := [str(n) for n in numbers if n not in profile.tables]:
        gaps.append(f"this profile has no Table {', '.join(absent)}")
    return found, "".join(f"; {gap}" for gap in gaps)


def so_far(verdict: str, gaps: str) -> str:
    """A claim stands only where all that it speaks of was compared."""
    return PART if verdict == STANDS and gaps else verdict


def differences(found: Sequence[Duel]) -> str:
    return ", ".join(f"{d.points:+.1f}" for d in found) + " points"


def size(found: Sequence[Duel]) -> str:
    return "; ".join(f"{n} images, {k} seed{'s' * (k > 1)}" for n, k in sorted({(d.n, d.seeds) for d in found}))


def left(profile: Profile, arm: str, numbers: Sequence[int]) -> str:
    """What arm A's models keep under a proper attack: its own attacks say little."""
    found = duels(cases(profile, "A", numbers, "proper"), ["sce"]) if arm == "A" else []
    return "".join(f"; {d.case}: I-SCE {d.ours:.1f} %, SCE {d.theirs:.1f} %" for d in found)


def _rivals(arm: str) -> list[str]:
    return ["sce"] if arm == "A" else [name for name in METHODS if name != "isce"]


def _better(
    profile: Profile, arm: str, numbers: Sequence[int], attacks: str, rival: str = "", keeps_clean: bool = False
) -> Finding:
    """C1, C4, C13: I-SCE wins most comparisons, and keeps its clean accuracy where that is claimed."""
    rivals = [rival] if rival else _rivals(arm)
    found, gaps = compared(profile, arm, numbers, attacks, rivals)
    clean = duels(cases(profile, arm, numbers, "clean"), ["sce"]) if keeps_clean else []
    if not found or (keeps_clean and not clean):
        return Finding(OPEN)
    verdict, measured = most(found), tally(found)
    if clean:
        verdict = PART if verdict == STANDS and min(d.points for d in clean) < -1 else verdict
        measured += f"; clean {differences(clean)} to SCE"
    return Finding(so_far(verdict, gaps), measured + gaps + left(profile, arm, numbers), size(found), MCNEMAR)


def _gap(profile: Profile, arm: str) -> Finding:
    """C2."""
    found = duels(cases(profile, arm, [1], "pgd_un_50"), ["sce"])
    if not found:
        return Finding(OPEN)
    large, won = max(d.points for d in found) >= 50, any(d.winner > 0 for d in found)
    verdict = STANDS if large else PART if won else FAILS
    return Finding(verdict, differences(found) + left(profile, arm, [1]), size(found), MCNEMAR)


def _every(profile: Profile, arm: str) -> Finding:
    """C3."""
    found, gaps = compared(profile, arm, [3], "deepfool", _rivals(arm))
    if not found:
        return Finding(OPEN)
    won, large = share(d.winner > 0 for d in found), share(d.points > 50 for d in found)
    verdict = so_far(STANDS if won == 1 and large > 0.5 else PART if won > 0.5 else FAILS, gaps)
    return Finding(verdict, tally(found) + gaps + left(profile, arm, [3]), size(found), MCNEMAR)


def _shallow(profile: Profile, arm: str) -> Finding:
    """C5."""
    found, gaps = compared(profile, arm, [5, 6], "pgd", _rivals(arm))
    mmc_clean = duels(cases(profile, arm, [7], "clean"), ["sce"], "mmc")
    near, first, columns = [], [], cases(profile, arm, [7], "deepfool")
    for case in columns:
        found_of = zip(METHODS, nested([case.outcomes(m) for m in METHODS]), strict=True)
        accuracy = {m: 100 * float(np.mean(list(bits.values()))) for m, bits in found_of if bits}
        if len(accuracy) == len(METHODS):  # else nobody knows the best
            best = max(value for method, value in accuracy.items() if method != "isce")
            near.append(accuracy["isce"] - best)
            first.append(accuracy["mmc"] >= max(accuracy.values()))
    if not (found and mmc_clean and near):
        return Finding(OPEN)
    parts = [
        share(d.winner > 0 for d in found) > 0.5,
        share(d.points > 50 for d in found) >= 0.25,
        share(points >= -5 for points in near) > 0.5,
        share(first) > 0.5 and all(d.winner < 0 for d in mmc_clean),
    ]
    verdict = STANDS if all(parts) and len(near) == len(columns) else PART if parts[0] or parts[2] else FAILS
    measured = (
        f"(1, 2) {tally(found)}{gaps}; (3) to the best of the others {', '.join(f'{points:+.1f}' for points in near)} points, "
        f"{len(near)} of {len(columns)} columns known; "
        f"(4) MMC the best in {sum(first)} of {len(first)}, its clean accuracy {differences(mmc_clean)} to SCE"
    )
    return Finding(so_far(verdict, gaps), measured, size(found), MCNEMAR)


def _adversarial_training(profile: Profile, arm: str) -> Finding:
    """C6."""
    clean = duels(cases(profile, arm, [2], "clean"), ["sce"], "at")
    found = duels(cases(profile, arm, [2], "pgd_un_50"), ["at"])
    if not (clean and found):
        return Finding(OPEN)
    verdict = grade([all(d.winner < 0 and d.points <= -1 for d in clean), all(d.winner > 0 for d in found)])
    measured = f"(1) AT {differences(clean)} to SCE; (2) I-SCE {differences(found)} to AT"
    return Finding(verdict, measured, size(found), MCNEMAR)


def _ablation(profile: Profile, arm: str) -> Finding:
    """C7."""
    found, missing, n = [], [], profile.figures["ablation_n"]
    for block, backbone in paper.ABLATION:
        for attack in paper.ABLATION_ATTACKS:
            records = [record.find(e.path) for e in profile.ablation(block, backbone, attack)]
            right = [round(r["results"][0]["accuracy"] * r["n"] / 100) for r in records if r is not None]
            if len(right) == len(records) > 1:
                table = np.array([right, [n - k for k in right]])
                p = float(chi2_contingency(table).pvalue) if (table.sum(1) > 0).all() else 1.0
                words = f"{block} {attack}: {100 * min(right) / n:.1f} to {100 * max(right) / n:.1f} %, p = {p:.2g}"
                found.append((words, p < LEVEL))
            else:
                missing.append(f"{block} {attack}")
    if not found:
        return Finding(OPEN)
    varies = share(sure for _, sure in found)
    verdict = STANDS if varies > 0.5 and not missing else PART if varies else FAILS
    measured = "; ".join(words for words, _ in found) + (f"; not run: {', '.join(missing)}" if missing else "")
    return Finding(verdict, measured, f"{n} validation images, 1 seed", f"chi-square over the grid, p < {LEVEL}")


def _separation(profile: Profile, arm: str) -> Finding:
    """C8."""
    dataset, found = profile.stand_in["mnist"], {}
    for method in ("isce", "sce"):
        for root in (record.results_dir(), record.runs_dir()):
            for path in sorted(root.glob(f"{dataset}-lenet5-{method}-3d-seed0-*/separation.json")):
                found[method] = record.read_json(path)
    ours, theirs = found.get("isce"), found.get("sce")
    if ours is None or theirs is None:
        return Finding(OPEN)
    keys = ("euclidean", "cosine", "nearest_mean")
    measured = "; ".join(f"{key}: I-SCE {ours[key]:.2f}, SCE {theirs[key]:.2f}" for key in keys)
    return Finding(grade(ours[k] > theirs[k] for k in keys), measured, f"{ours['n']} images, 1 seed", "none: compared")


def _averages(profile: Profile, arm: str) -> Finding:
    """C9."""
    wanted = [profile.evaluation(*net, "isce", "clean", seed) for net in profile.nets for seed in profile.seeds]
    if arm == "A":
        wanted = [e for e in profile.arm_a() if (e.attack, e.spec.method) == ("clean", "isce")]
    means: dict[str, list[tuple[float, float]]] = {}
    for evaluation in wanted:
        if (done := record.find(evaluation.path)) is not None:
            where = f"{evaluation.spec.dataset} {evaluation.spec.backbone}"
            means.setdefault(where, []).append((done["outputs"]["label_output"], done["outputs"]["others_exp_sum"]))
    if not means:
        return Finding(OPEN)
    found = {where: np.mean(values, axis=0) for where, values in means.items()}
    verdict = grade(abs(own - 0.97) < 0.05 and abs(rest - 8) < 0.5 for own, rest in found.values())
    measured = "; ".join(f"{where}: f_i {own:.3f}, sum {rest:.2f}" for where, (own, rest) in found.items())
    return Finding(verdict, measured, "all test images", "none: within a tolerance")


RULES: dict[str, Callable[[Profile, str], Finding]] = {
    "C1": partial(_better, numbers=[1, 2], attacks="pgd", keeps_clean=True),
    "C2": _gap,
    "C3": _every,
    "C4": partial(_better, numbers=[4], attacks="simba"),
    "C5": _shallow,
    "C6": _adversarial_training,
    "C7": _ablation,
    "C8": _separation,
    "C9": _averages,
    "C13": partial(_better, numbers=range(1, 8), attacks="", rival="arcface"),
}


def _on_models(profile: Profile) -> tuple[str, str]:
    """What `notebooks/theory.ipynb` measured on the profile's networks, in words beside C11 and C12; empty without records."""
    found = {
        label: record.find(profile.spec("mnist", "lenet5", method).folder / "theory.json")
        for label, method in (("I-SCE's", "isce"), ("SCE's", "sce"))
    }
    own = {label: done for label, done in found.items() if done is not None}
    if not own:
        return "", ""
    holds = [
        f"in {done['holds']['L_I > L']:.1f} % of {done['pairs']} with {label} weights" for label, done in own.items()
    ]
    risks = {label: done["risk"][-1] for label, done in own.items()}
    lower = [
        f"with {label} weights {r['rho']:.3f} to {r['rho_I']:.3f}, accuracy {r['accuracy, %']:.1f} %"
        for label, r in risks.items()
    ]
    eps = next(iter(risks.values()))["eps"]
    return (
        f"; at the smallest perturbations of test images L_I > L {', '.join(holds)}",
        f"; measured at radius {eps:g}, rho to rho_I: {'; '.join(lower)}",
    )


def _theory(profile: Profile) -> dict[str, Finding]:
    on_pairs, on_risk = _on_models(profile)
    s, m = (t.double() for t in (torch.linspace(1, 2, 101), torch.linspace(0.001, 0.1, 100)))
    inside = bool((theory.z(s.unsqueeze(1), m) > 0).all())
    beyond = bool((theory.z(6.0, 10 * m) > 0).all())
    low, high = theory.positive_margins(torch.tensor(6.0, dtype=torch.float64))
    f, f_adv = theory.boundary_pairs(20_000)
    index = torch.zeros(len(f), dtype=torch.int64)
    sce = theory.L(f, f_adv, index)
    longer = 100 * float((theory.L_I(f, f_adv, index) > sce).double().mean())
    wide, wide_adv = torch.tensor([[10.0] + [0.0] * 9]).double(), torch.tensor([[5.0, 5.0] + [0.0] * 8]).double()
    zero = torch.zeros(1, dtype=torch.int64)
    counter = float(theory.L_I(wide, wide_adv, zero) - theory.L(wide, wide_adv, zero))
    return {
        "C10": Finding(
            PART if inside and not beyond else grade([inside]),
            f"z > 0 on the whole grid s in [1, 2], m in (0, 0.1]: {inside}; at s = 6 only for m between {float(low):.2f} and {float(high):.2f}",
            test="closed form",
        ),
        "C11": Finding(
            STANDS if longer == 100 and counter > 0 else PART if longer > 0 else FAILS,
            f"unit logits: in {longer:.1f} % of {len(f)} random pairs; logits 10 falling to a tie at 5: L_I - L = {counter:+.4f}{on_pairs}",
            test="closed form at random pairs",
        ),
        "C12": Finding(
            STANDS if bool(theory.loss_is_lower(torch.linspace(-1, 1, 201)).all()) else FAILS,
            "P_I > P iff (s - 1) f_i + m > 0: true at s = 1 for every f; but a constant added to the right class's logit moves "
            f"neither the decision nor the optimum on the sphere, so a lower loss is no better defence (see C1 to C6){on_risk}",
            test="closed form",
        ),
    }


def judge(profile: Profile) -> pd.DataFrame:
    """A row per claim and arm: claim, arm, the paper, rule, measured, n, test, verdict, evidence.

    From records of `profile`. C10 to C12 are decided by closed forms: one row each, of arm "-"; what was measured on networks
    stands beside.
    """
    theory_of, rows = _theory(profile), []
    for claim in paper.CLAIMS.values():
        for arm in ARMS if claim.id in RULES else "-":
            why = WHY_NOT.get((claim.id, arm))
            finding = (
                theory_of[claim.id] if arm == "-" else Finding(OPEN, why) if why else RULES[claim.id](profile, arm)
            )
            evidence = {"A": "notebooks as-coded-*", "C": f"worst case on the networks of: {claim.where}"}
            rows.append(
                {
                    "claim": claim.id,
                    "arm": arm,
                    "the paper": claim.sentence,
                    "rule": claim.rule,
                    "measured": finding.measured,
                    "n": finding.n,
                    "test": finding.test,
                    "verdict": finding.verdict,
                    "evidence": "" if finding.verdict == OPEN else evidence.get(arm, claim.where),
                }
            )
    return pd.DataFrame(rows)


def side_by_side(judged: pd.DataFrame) -> pd.DataFrame:
    """A row per claim, the arms beside one another: what the paper's protocol gives, and what is left under proper attack."""
    words = judged.assign(words=judged["verdict"] + ": " + judged["measured"])
    wide = (
        words.pivot(index=["claim", "the paper"], columns="arm", values="words")
        .reindex(columns=[*ARMS, "-"])
        .fillna("")
    )
    wide = wide.loc[list(dict.fromkeys(zip(judged["claim"], judged["the paper"], strict=True)))]
    return wide.rename(columns=HEADS).reset_index().rename_axis(columns=None)


def styled(ledger: pd.DataFrame) -> Styler:
    """A table of `judge` or `side_by_side` for a notebook, its verdicts coloured."""
    lines: list[Any] = [{"selector": "td, th", "props": "text-align: left; vertical-align: top; white-space: normal"}]
    colors = {verdict: f"background: {color}" for verdict, color in COLORS.items()}
    style = ledger.style.hide(axis="index").map(lambda cell: colors.get(str(cell).partition(":")[0], ""))
    return style.set_table_styles(lines)

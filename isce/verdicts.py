"""The ledger of claims: for each claim of the paper and each arm, a verdict computed from records by the rule in `isce.paper`.

Arm A: trained and attacked as coded (isce.as_coded). Arm B: as written. Arm C: B's models, worst case over attacks.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.io.formats.style import Styler
from torch import Tensor

from isce import methods, paper, record, theory, train
from isce.data import DATASETS
from isce.evaluate import label, parse
from isce.evaluations import find, find_whole, unpack
from isce.profiles import Profile
from isce.statistics import LEVEL, ablation_test, p_below, shared
from isce.tables import outcomes, worst_outcomes

STANDS, PART, FAILS, OPEN = "stands", "stands in part", "fails", "not run"
UNDECIDED = "undecided"  # some of what the rule counts has a record, and the rest could turn the verdict
NOT_ASKED = "does not apply"
COLORS = {
    STANDS: "#d7efdc",
    FAILS: "#f6d5d2",
    PART: "#fbecc8",
    UNDECIDED: "#e3e6f5",
    OPEN: "#eeeeee",
    NOT_ASKED: "none",
}
ARMS = {"A": "A, as coded", "B": "B, as written", "C": "C, properly attacked"}
HEADS = ARMS | {"-": "no arm: theory"}
PAIRED = f"exact sign-flip test on the same images, p < {LEVEL}, above with every seed"
NO_RECORD = "no record in this profile"
WHY_NOT = {  # why an arm says nothing of a claim
    ("C4", "A"): "the script has no SimBA",
    ("C5", "A"): "the script has ResNet-32 alone",
    ("C6", "A"): "the script has no AT",
    ("C7", "A"): "Figure 3's grid is trained as written",
    ("C7", "C"): "Figure 3 attacks as the paper does",
    ("C8", "A"): "the script has no 3-D embedding",
    ("C8", "C"): "judged on clean images",
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
    """Where methods are compared: `outcomes` of some are, for each, its images that stayed right, (n,) booleans by seed."""

    name: str
    outcomes: Callable[[Sequence[str]], list[dict[int, np.ndarray]]]


def cases(profile: Profile, arm: str, numbers: Sequence[int], attacks: str = "") -> list[Case]:
    """The cases of an arm for the columns of these tables whose attack begins with `attacks`; all but clean if ""."""
    columns, nets = [c for n in numbers for c in paper.TABLES[n].columns], paper.networks(numbers)
    if arm == "A":
        return [case for block, net in nets for case in _as_coded(profile, block, net, attacks)]
    if arm == "C" and attacks != "clean":
        return [
            Case(f"{block} {net}, ε = {level:g}", worst_outcomes(profile, block, net, level))
            for block, net in nets
            for level in profile.eps[block]
        ]
    wanted = [c for c in columns if (c.attack.startswith(attacks) if attacks else c.attack != "clean")]
    return [
        Case(c.key, _each(partial(outcomes, profile, c.block, c.backbone, attack=c.attack, at=c.eps_index or 0)))
        for c in wanted
    ]


def _each(of: Callable[[str], dict[int, np.ndarray]]) -> Callable[[Sequence[str]], list[dict[int, np.ndarray]]]:
    """`Case.outcomes`, each method's by itself and read once."""
    read = cache(of)
    return lambda names: [read(name) for name in names]


def _as_coded(profile: Profile, block: str, net: str, attacks: str) -> list[Case]:
    """Arm A's counterparts of `attacks` on a network; "proper" are the attacks on its models that are not the script's."""
    if not profile.as_coded["blocks"] or net != "resnet32":
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
            f"{block}, {label(name)} at {level:g}",
            _each(partial(outcomes, profile, block, net, attack=name, at=at, arm="A")),
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
    n: int = 0
    seeds: int = 0

    @property
    def points(self) -> float:
        return round(self.ours - self.theirs, 6)  # a gap of 50 points is not one of more than 50


LOST, WON = Duel("", "", 0.0, 100.0, -1), Duel("", "", 100.0, 0.0, 1)  # what has no record could be either


@dataclass(frozen=True)
class Known:
    """What a rule counts, so far: items that have records, how many have none, and what these could be at worst and at best."""

    found: list[Any]
    missing: int = 0
    ends: tuple[Any, Any] = (LOST, WON)

    @property
    def bounds(self) -> Iterator[list[Any]]:
        return (self.found + [end] * self.missing for end in self.ends)


def bounded(rule: Callable[..., str], *groups: Known) -> tuple[str, str]:
    """The verdict of a rule over groups of items, where those without a record cannot change it; else UNDECIDED, and in words
    what it would be if all of them spoke against the claim, and if all spoke for it."""
    least, most = (rule(*items) for items in zip(*(group.bounds for group in groups), strict=True))
    return (least, "") if least == most else (UNDECIDED, f"; depending on what is missing: {least} to {most}")


def duels(found: Sequence[Case], rivals: Sequence[str], one: str = "isce") -> list[Duel]:
    """`one` against each rival in each case, on the seeds that both have; pairs without a record are left out."""
    fought = []
    for case in found:
        for rival in rivals:
            ours, theirs = shared(case.outcomes([one, rival]))
            if seeds := sorted(ours):
                mean, other = (100 * float(np.mean([bits[seed] for seed in seeds])) for bits in (ours, theirs))
                winner = int(p_below(ours, theirs) < LEVEL) - int(p_below(theirs, ours) < LEVEL)
                fought.append(Duel(case.name, rival, mean, other, winner, len(ours[seeds[0]]), len(seeds)))
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


def gap(found: Sequence[Duel]) -> str:
    """C2. Stands: by 50 points once. Fails: won nowhere."""
    return STANDS if max(d.points for d in found) >= 50 else PART if any(d.winner > 0 for d in found) else FAILS


def every(found: Sequence[Duel]) -> str:
    """C3. Stands: won all, most of them by over 50 points. Fails: not even won over half."""
    won, large = share(d.winner > 0 for d in found), share(d.points > 50 for d in found)
    return STANDS if won == 1 and large > 0.5 else PART if won > 0.5 else FAILS


def tally(found: Sequence[Duel]) -> str:
    if not found:
        return "not run"
    won, lost = sum(d.winner > 0 for d in found), sum(d.winner < 0 for d in found)
    ours, theirs = np.mean([d.ours for d in found]), np.mean([d.theirs for d in found])
    large, points = sum(d.points > 50 for d in found), [d.points for d in found]
    return (
        f"won {won}, lost {lost} of {len(found)} comparisons, {large} by more than 50 points; on average I-SCE {ours:.1f} %, "
        f"others {theirs:.1f} %; from {signed(min(points))} to {signed(max(points))} points"
    )


def signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}"  # no -0.0


def compared(
    profile: Profile, arm: str, numbers: Sequence[int], attacks: str, rivals: Sequence[str], one: str = "isce"
) -> tuple[Known, str]:
    """`one` against each rival in each case of these tables; and in words what has no record, "" if nothing."""
    wanted = cases(profile, arm, numbers, attacks)
    found, gaps = duels(wanted, rivals, one), []
    missing = len(wanted) * len(rivals) - len(found)
    met = [methods.get(name).label for name in rivals if any(d.rival == name for d in found)]
    if met and len(met) < len(rivals):
        gaps.append(f"of the {len(rivals)} others only {', '.join(met)} could be compared")
    if missing:
        gaps.append(f"{len(found)} of {len(wanted) * len(rivals)} comparisons have records")
    return Known(found, missing), "".join(f"; {gap}" for gap in gaps)


def differences(found: Sequence[Duel]) -> str:
    return ", ".join(signed(d.points) for d in found) + " points" if found else "not run"


def size(found: Sequence[Duel]) -> str:
    return "; ".join(f"{n} images, {k} seed{'s' * (k > 1)}" for n, k in sorted({(d.n, d.seeds) for d in found}))


def left(profile: Profile, arm: str, numbers: Sequence[int]) -> str:
    """What arm A's models keep under a proper attack: its own attacks say little."""
    found = duels(cases(profile, "A", numbers, "proper"), ["sce"]) if arm == "A" else []
    return "".join(f"; {d.case}: I-SCE {d.ours:.1f} %, SCE {d.theirs:.1f} %" for d in found)


def _rivals(arm: str) -> list[str]:
    return ["sce"] if arm == "A" else [name for name in paper.METHODS if name != "isce"]


def _better(
    profile: Profile,
    arm: str,
    numbers: Sequence[int],
    attacks: str,
    rival: str = "",
    keeps_clean: bool = False,
    graded: Callable[[Sequence[Duel]], str] = most,
    words: Callable[[Sequence[Duel]], str] = tally,
) -> Finding:
    """C1 to C4, C13: I-SCE wins as many comparisons as the claim says, and keeps its clean accuracy where that is claimed."""
    duel, gaps = compared(profile, arm, numbers, attacks, [rival] if rival else _rivals(arm))
    clean, _ = compared(profile, arm, numbers, "clean", ["sce"]) if keeps_clean else (Known([]), "")
    if not duel.found:
        return Finding(OPEN)

    def rule(found: list[Duel], clean: list[Duel]) -> str:
        verdict = graded(found)
        return PART if verdict == STANDS and any(d.points < -1 for d in clean) else verdict

    verdict, open_to = bounded(rule, duel, clean)
    measured = words(duel.found) + (f"; clean {differences(clean.found)} to SCE" if clean.found else "")
    return Finding(verdict, measured + gaps + open_to + left(profile, arm, numbers), size(duel.found), PAIRED)


def _shallow(profile: Profile, arm: str) -> Finding:
    """C5."""
    duel, gaps = compared(profile, arm, [5, 6], "pgd", _rivals(arm))
    mmc_clean, _ = compared(profile, arm, [7], "clean", ["sce"], "mmc")
    near, first, columns = [], [], cases(profile, arm, [7], "deepfool")
    for case in columns:
        found_of = dict(zip(paper.METHODS, shared(case.outcomes(paper.METHODS)), strict=True))
        if all(found_of.values()):  # else nobody knows the best
            accuracy = {m: 100 * float(np.mean(list(bits.values()))) for m, bits in found_of.items()}
            best = max(value for method, value in accuracy.items() if method != "isce")
            near.append(round(accuracy["isce"] - best, 6))
            first.append(accuracy["mmc"] >= max(accuracy.values()))
    if not (duel.found or near):
        return Finding(OPEN)

    def rule(found: list[Duel], mmc_clean: list[Duel], near: list[float], first: list[bool]) -> str:
        best_under_pgd, near_under_deepfool = most(found) == STANDS, share(points >= -5 for points in near) > 0.5
        others = [
            share(d.points > 50 for d in found) >= 0.25,
            share(first) > 0.5 and all(d.winner < 0 for d in mmc_clean),
        ]
        if best_under_pgd and near_under_deepfool and all(others):
            return STANDS
        return PART if best_under_pgd or near_under_deepfool else FAILS

    unknown = len(columns) - len(near)
    mmc_loses = dataclasses.replace(mmc_clean, ends=(WON, LOST))
    known = (Known(near, unknown, (-100.0, 0.0)), Known(first, unknown, (False, True)))
    verdict, open_to = bounded(rule, duel, mmc_loses, *known)
    measured = (
        f"(1, 2) {tally(duel.found)}{gaps}; (3) to the best of the others {', '.join(map(signed, near)) or 'no'} points, "
        f"{len(near)} of {len(columns)} columns known; "
        f"(4) MMC the best in {sum(first)} of {len(first)}, its clean accuracy to SCE: {differences(mmc_clean.found)}"
    )
    return Finding(verdict, measured + open_to, size(duel.found), PAIRED)


def _adversarial_training(profile: Profile, arm: str) -> Finding:
    """C6."""
    clean, _ = compared(profile, arm, [2], "clean", ["sce"], "at")
    duel, gaps = compared(profile, arm, [1, 2], "pgd_un_50", ["at"])
    if not (duel.found or clean.found):
        return Finding(OPEN)

    def rule(clean: list[Duel], found: list[Duel]) -> str:
        return grade([all(d.winner < 0 and d.points <= -1 for d in clean), all(d.winner > 0 for d in found)])

    verdict, open_to = bounded(rule, dataclasses.replace(clean, ends=(WON, LOST)), duel)
    measured = f"(1) AT to SCE: {differences(clean.found)}; (2) I-SCE to AT: {differences(duel.found)}{gaps}{open_to}"
    return Finding(verdict, measured, size(duel.found), PAIRED)


def _ablation(profile: Profile, arm: str) -> Finding:
    """C7."""
    found, missing = [], []
    for block, backbone in paper.ABLATION:
        for attack in paper.ABLATION_ATTACKS:
            grid, same = profile.ablation(block, backbone, attack)
            same = [e for e in same if e not in grid]  # one setting and seed is in both
            done = [[find_whole(e) for e in part] for part in (grid, same)]
            sides = len(profile.figures["ablation_s"]), len(profile.figures["ablation_m"])
            if all(all(part) for part in done) and min(*sides, len(same)) > 1:  # variances need two
                right = [np.stack([unpack(r["results"][0]["correct"], r["n"]) for r in part if r]) for part in done]
                found.append((f"{block} {attack}", *ablation_test(right[0], right[1], sides)))
            else:
                missing.append(f"{block} {attack}")
    if not found:
        return Finding(OPEN)

    def rule(varies: list[bool]) -> str:
        return STANDS if share(varies) > 0.5 else PART if any(varies) else FAILS

    verdict, open_to = bounded(rule, Known([p < LEVEL for _, _, p in found], len(missing), (False, True)))
    measured = "; ".join(f"{where}: {words}, p = {p:.2g}" for where, words, p in found)
    measured += (f"; not run: {', '.join(missing)}" if missing else "") + open_to
    n, seeds = profile.figures["ablation_n"], profile.figures["ablation_seeds"] - 1
    return Finding(verdict, measured, f"{n} validation images", f"F test, grid over {seeds} other seeds, p < {LEVEL}")


def _separation(profile: Profile, arm: str) -> Finding:
    """C8."""
    keys, above, found, n = ("euclidean", "cosine", "nearest_mean"), [], [], set()
    for block, backbone in profile.figures["embedding"].items():
        specs = [profile.embedding(block, method).spec for method in ("isce", "sce")]
        ours, theirs = (train.measures(spec, "separation") for spec in specs)
        if ours is None or theirs is None:
            continue
        above += [ours[key] > theirs[key] for key in keys]
        n.add(ours["n"])
        trained = [record.find(spec.folder / "result.json") for spec in specs]
        right = [f"{done['metrics']['test_accuracy']:.1f}" if done else "unknown" for done in trained]
        words = [f"{key} {ours[key]:.3g} and {theirs[key]:.3g}{' (above)' * (ours[key] > theirs[key])}" for key in keys]
        found.append(f"{block}, {backbone}: {', '.join(words)}, clean accuracy {' and '.join(right)} %")
    if not found:
        return Finding(OPEN)
    missing = len(keys) * len(profile.figures["embedding"]) - len(above)
    verdict, open_to = bounded(grade, Known(above, missing, (False, True)))
    measured = f"3-D networks of I-SCE and SCE, {'; '.join(found)}{open_to}"
    return Finding(verdict, measured, f"{', '.join(map(str, sorted(n)))} images, 1 seed", "none: compared")


def _averages(profile: Profile, arm: str) -> Finding:
    """C9."""
    nets = paper.networks()
    wanted = [evaluation for net in nets for evaluation in profile.over_seeds(*net, "isce", "clean")]
    if arm == "A":
        nets = [net for net in nets if net[1] == "resnet32"]
        wanted = [e for e in profile.arm_a() if (e.attack, e.spec.method) == ("clean", "isce")]
    means: dict[str, list[tuple[float, float]]] = {}
    for evaluation in wanted:
        if (done := find(evaluation)) is not None:
            where = f"{evaluation.spec.dataset} {evaluation.spec.backbone}"
            means.setdefault(where, []).append(_outputs(done))
    if not means:
        return Finding(OPEN)
    found = {where: np.mean(values, axis=0) for where, values in means.items()}
    images = dict.fromkeys(found, "test images")
    for net in nets if arm == "B" else []:  # the paper averages over all images
        whole = [find(evaluation) for evaluation in profile.everything(*net)]
        if all(whole):
            n, *values = np.array([(r["n"], *_outputs(r)) for r in whole if r]).T
            where = f"{profile.stand_in[net[0]]} {net[1]}"
            found[where] = np.average(values, axis=1, weights=n)
            images[where] = f"all {n.sum():,.0f} images of one seed"
    measured = [f"{where}: f_i {own:.3f}, sum {rest:.2f} ({images[where]})" for where, (own, rest) in found.items()]
    deep = [net for net in nets if net[1] == "resnet32"]
    near, groups = [], {"ResNet-32": deep, "the shallow networks": [net for net in nets if net not in deep]}
    groups = {name: group for name, group in groups.items() if group}
    for name, group in groups.items():
        parts = {
            f"{profile.stand_in[block]} {net}": sum(DATASETS[profile.stand_in[block]].sizes) for block, net in group
        }
        if all(part in found for part in parts):
            own, rest = np.average([found[part] for part in parts], axis=0, weights=list(parts.values()))
            near.append(abs(own - 0.97) < 0.05 and abs(rest - 8) < 0.5)
            measured.append(f"{name} over both data sets: f_i {own:.3f}, sum {rest:.2f}")
    verdict, open_to = bounded(grade, Known(near, len(groups) - len(near), (False, True)))
    least = 9 * math.exp(-math.sqrt(1 - 0.97**2) / 3)
    measured.append(f"at f_i = 0.97 nine other unit logits sum to {least:.2f} at least")
    return Finding(verdict, "; ".join(measured) + open_to, "as measured", "none: within a tolerance")


def _outputs(done: dict[str, Any]) -> tuple[float, float]:
    return done["outputs"]["label_output"], done["outputs"]["others_exp_sum"]


RULES: dict[str, Callable[[Profile, str], Finding]] = {
    "C1": partial(_better, numbers=[1, 2], attacks="pgd", keeps_clean=True),
    "C2": partial(_better, numbers=[1], attacks="pgd_un_50", rival="sce", graded=gap, words=differences),
    "C3": partial(_better, numbers=[3], attacks="deepfool", graded=every),
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
        label: train.measures(profile.spec("mnist", "lenet5", method), "theory")
        for label, method in (("I-SCE's", "isce"), ("SCE's", "sce"))
    }
    own = {label: done for label, done in found.items() if done is not None}
    if not own:
        return "", ""
    holds = [
        f"in {done['holds']['L_I > L']:.1f} % of {done['pairs']} with {label} weights (z > 0 at x in {done['holds']['z > 0 at x']:.1f} %)"
        for label, done in own.items()
    ]
    risks = {label: done["risk"][-1] for label, done in own.items()}
    lower = [
        f"with {label} weights {r['rho']:.3f} to {r['rho_I']:.3f}, accuracy {r['accuracy, %']:.1f} %"
        for label, r in risks.items()
    ]
    eps = next(iter(risks.values()))["eps"]
    return (
        f"; at the perturbations that DeepFool found of test images L_I > L {', '.join(holds)}",
        f"; measured at radius {eps:g}, rho to rho_I: {'; '.join(lower)}",
    )


def _ahead_below_zero() -> tuple[Tensor, Tensor]:
    """A pair of unit logits as theory.boundary_pairs draws none: class 0 is ahead with f_0 = -0.2, below -m / (s - 1) at s = 2."""
    f = torch.tensor([[-0.2] + [-math.sqrt(0.96 / 9)] * 9]).double()
    f_adv = torch.tensor([[-0.2001] * 2 + [-0.795] + [-0.2028] * 7]).double()
    return f / f.norm(), f_adv / f_adv.norm()


def _theory(profile: Profile) -> dict[str, Finding]:
    on_pairs, on_risk = _on_models(profile)
    s, m = (t.double() for t in (torch.linspace(1, 2, 101), torch.linspace(0.001, 0.1, 100)))
    inside = bool((theory.z(s.unsqueeze(1), m) > 0).all())
    beyond = bool((theory.z(6.0, 10 * m) > 0).all())
    low, high = theory.positive_margins(torch.tensor(6.0, dtype=torch.float64))
    f, f_adv = (torch.cat(both) for both in zip(theory.boundary_pairs(20_000), _ahead_below_zero(), strict=True))
    lengths = {
        "unit logits": torch.ones(1, 1),
        "logits of lengths 0.5 to 6": torch.linspace(0.5, 6, len(f)).unsqueeze(1),
    }
    held, found = [], []
    for (of, length), scale in product(lengths.items(), (1.0, 2.0)):
        holds, _ = theory.assumptions(length * f, length * f_adv, 0, scale, 0.1)
        asked = holds["P falls"] & holds["z > 0 at x"] & holds["z > 0 at x + delta"]
        broken = int((asked & ~holds["L_I > L"]).sum())
        held.append(not broken)
        but = f"all but {broken}" if broken else "all"
        found.append(f"{of}, s = {scale:g}: L_I > L in {but} of {int(asked.sum())}")
    holds, _ = theory.assumptions(f, f_adv, 0)
    rises = ~holds["P falls"]
    logits = torch.linspace(-1, 1, 201).double()
    return {
        "C10": Finding(
            PART if inside and not beyond else grade([inside]),
            f"z > 0 on the whole grid s in [1, 2], m in (0, 0.1]: {inside}; at s = 6 only for m between {float(low):.2f} and {float(high):.2f}",
            test="closed form",
        ),
        "C11": Finding(
            grade(held),
            f"random pairs, and one with f_i = -0.2 ahead, with z > 0 at both ends whose P(i) falls (L > 0): {'; '.join(found)}. That P(i) falls does not follow "
            f"from f_i(x + delta) < f_i(x): of {len(f)} pairs of unit logits it rises in {int(rises.sum())}, with L_I > L in "
            f"{int((rises & holds['L_I > L']).sum())} of them at s = 1{on_pairs}",
            test="closed form at random pairs",
        ),
        "C12": Finding(
            grade(bool(theory.loss_is_lower(logits, s=s, m=0.1).all()) for s in (1.0, 2.0)),
            "P_I > P iff (s - 1) f_i + m > 0: true at s = 1 for every f_i, at s = 2, m = 0.1 only where f_i > -0.1; and a constant "
            "added to the right class's logit moves neither the decision nor the optimum on the sphere, so that a lower loss "
            f"is no better defence (see C1 to C6){on_risk}",
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
        for arm in ARMS if claim.id in RULES else ("-",):
            why = WHY_NOT.get((claim.id, arm))
            finding = (
                theory_of[claim.id] if arm == "-" else Finding(NOT_ASKED, why) if why else RULES[claim.id](profile, arm)
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
                    "evidence": "" if finding.verdict in (OPEN, NOT_ASKED) else evidence.get(arm, claim.where),
                }
            )
    return pd.DataFrame(rows)


def side_by_side(judged: pd.DataFrame) -> pd.DataFrame:
    """A row per claim, its verdict under each arm: by the paper's protocol, and under proper attack. The evidence is `judge`'s."""
    wide = judged.pivot(index=["claim", "the paper"], columns="arm", values="verdict")
    wide = wide.reindex(columns=[*ARMS, "-"]).fillna("")
    wide = wide.loc[list(dict.fromkeys(zip(judged["claim"], judged["the paper"], strict=True)))]
    return wide.rename(columns=HEADS).reset_index().rename_axis(columns=None)


def styled(ledger: pd.DataFrame) -> Styler:
    """A table of `judge` or `side_by_side` for a notebook, its verdicts coloured."""
    lines: list[Any] = [{"selector": "td, th", "props": "text-align: left; vertical-align: top; white-space: normal"}]
    colors = {verdict: f"background: {color}" for verdict, color in COLORS.items()}
    style = ledger.style.hide(axis="index").map(lambda cell: colors.get(str(cell), ""))
    return record.named(style.set_table_styles(lines))

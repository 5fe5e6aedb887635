"""Run attacks over test images: one row per image, attack and level.

An attack is named `<what>` or `<what>@<surface>`: `deepfool_50` sees the model's outputs, `deepfool_50@raw` the logits
before their normalisation. Whatever the attack saw, its images are judged by the model's own decisions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from isce import as_coded, attacks, methods, record
from isce.attacks import Expectation, RawLogits, Rescaled, random
from isce.attacks.common import (
    check_images,
    check_numbers,
    check_range,
    default_batch,
    finite,
    held,
    logits_of,
    real,
    whole,
)
from isce.attacks.norms import norm_of, per_image
from isce.attacks.surfaces import check_decisions
from isce.data import Split, to_float
from isce.models import InferenceTransform

VERSION = 1  # of everything that shapes an attack's outcome; raise it when an attack changes


KINDS = ("fixed", "as_coded", "minimal", "queries", "clean")


@dataclass(frozen=True)
class Attack:
    """How an attack of `isce.attacks` is run at a list of levels.

    label: its printed name. run: the attack, called as those of `isce.attacks`. early_stop: whether it takes that argument.
    kind `fixed`: once per level, a radius. `as_coded`: once per value of the script's own ε, a step or an overshoot, in no ball.
    `minimal`: once; the perturbation found is scaled back to each level if it is longer, and tested. `queries`: once per
    level, a step size, within a query budget. `clean`: no attack.
    """

    label: str
    run: Callable[..., Any]
    kind: str = "fixed"
    early_stop: bool = False  # whether it takes this argument

    def __post_init__(self) -> None:
        record.choose("kind of attack", self.kind, KINDS)


def _deepfool(label: str, steps: int) -> Attack:
    return Attack(label, lambda *args, generator, **kw: attacks.deepfool(*args, steps=steps, **kw), "minimal")


def _as_coded(label: str, attack: Callable[..., Tensor], steps: int) -> Attack:
    def run(*args: Any, eps: float, **_: Any) -> Tensor:  # it has no norm
        return attack(*args, eps=eps, steps=steps)

    return Attack(f"{label} as coded", run, "as_coded")


def _pgd(label: str, steps: int, **options: Any) -> Attack:
    return Attack(label, partial(attacks.pgd, steps=steps, **options), early_stop=True)


ATTACKS: dict[str, Attack] = {
    "clean": Attack("Clean", lambda model, images, labels, **_: images, "clean"),
    "fgsm": Attack("FGSM", attacks.fgsm),
    "pgd_tar_10": _pgd("PGD tar 10", 10, targeted=True),
    "pgd_un_10": _pgd("PGD un 10", 10),
    "pgd_tar_50": _pgd("PGD tar 50", 50, targeted=True),
    "pgd_un_50": _pgd("PGD un 50", 50),
    "pgd_un_100": _pgd("PGD un 100", 100),
    "pgd_un_50x5": _pgd("PGD un 50, 5 restarts", 50, restarts=5),
    "pgd_margin_50": _pgd("PGD margin 50", 50, objective="margin"),
    "pgd_dlr_50": _pgd("PGD DLR 50", 50, objective="dlr"),
    "pgd_mmc_50": _pgd("PGD distance 50", 50, objective="mmc"),
    "deepfool_10": _deepfool("DF 10", 10),
    "deepfool_50": _deepfool("DF 50", 50),
    "simba": Attack("SimBA", partial(attacks.simba, basis="pixel", return_queries=True), "queries"),
    "simba_dct": Attack("SimBA DCT", partial(attacks.simba, basis="dct", return_queries=True), "queries"),
    "apgd_ce": Attack("APGD-CE", partial(attacks.apgd, objective="ce"), early_stop=True),
    "apgd_dlr": Attack("APGD-DLR", partial(attacks.apgd, objective="dlr"), early_stop=True),
    "apgd_t": Attack("APGD-T", attacks.apgd_targeted, early_stop=True),
    "fab": Attack("FAB-T", attacks.fab, "minimal"),
    "square": Attack("Square", attacks.square),
    "autoattack": Attack("AutoAttack", attacks.autoattack, early_stop=True),
    "as_coded_5": _as_coded("PGD un 5", as_coded.attack, 5),
    "as_coded_50": _as_coded("PGD un 50", as_coded.attack, 50),
    "as_coded_df_10": _as_coded("DF 10", as_coded.deepfool, 10),
    "as_coded_df_50": _as_coded("DF 50", as_coded.deepfool, 50),
}
GROUPS = {
    "pgd": ["pgd_tar_10", "pgd_un_10", "pgd_tar_50", "pgd_un_50"],
    "deepfool": ["deepfool_10", "deepfool_50"],
}
GROUPS["paper"] = [*GROUPS["pgd"], *GROUPS["deepfool"], "simba"]
SURFACES: dict[str, str] = {  # but for the model's outputs, which attacks see where they name none
    "raw": "logits before the output's normalisation",
    "x20": "outputs times 20",
    "inference": "I-SCE's inference softmax, equation 2",
    "eot20": "the mean prediction of 20 random passes",
    "transfer": "an SCE model of the same backbone and seed",
}


def parse(names: str) -> list[str]:
    """`"pgd,deepfool_50@raw"` -> attack names, groups (pgd, deepfool, paper) spelled out. ValueError for unknown ones."""
    found = []
    for part in filter(None, (part.strip() for part in names.split(","))):
        what, _, surface = part.partition("@")
        record.choose("attack", what, [*ATTACKS, *GROUPS])
        if surface:
            record.choose("surface", surface, SURFACES)
            if what == "clean":
                raise ValueError(f"{part}: clean images are judged by the model's decisions, on no surface")
        found += [f"{name}@{surface}" if surface else name for name in GROUPS.get(what, [what])]
    return list(dict.fromkeys(found))


def attack_of(name: str) -> Attack:
    """The attack of a name with or without its surface. ValueError for unknown ones."""
    return ATTACKS[record.choose("attack", name.partition("@")[0], ATTACKS)]


def label(name: str) -> str:
    surface = name.partition("@")[2]
    return attack_of(name).label + (f" on {surface}" if surface else "")


def surface_of(model: nn.Module, surface: str, surrogate: nn.Module | None = None) -> nn.Module:
    """What the attack sees of a model: one of `SURFACES`, or if "" its outputs. Raises ValueError
    or TypeError where it has no such surface."""
    if not surface:
        return model
    match record.choose("surface", surface, SURFACES):
        case "raw":
            return RawLogits(model)
        case "x20":
            return Rescaled(model, 20.0)
        case "eot20":
            return Expectation(model, 20)
        case "inference":
            head = getattr(model, "head", None)
            if not isinstance(head, methods.ISCEHead):
                raise ValueError("surface 'inference' is I-SCE's (equation 2): this model has no s and m")
            return InferenceTransform(model, head.s, max(head.m, 0.0))
        case "transfer":
            if surrogate is None:
                raise ValueError("surface 'transfer' needs a surrogate model")
            return surrogate
        case other:
            raise AssertionError(f"SURFACES names {other}, and nothing makes it")


@torch.no_grad()
def outputs_of(model: nn.Module, images: Tensor, batch_size: int = as_coded.BATCH) -> Tensor:
    """Outputs (N, K) of a model in eval mode for float images (N, ...), by default in arm A's batches: its batch norm depends on them."""
    # Copies: a model may write into what it is given.
    return torch.cat([logits_of(model, x.clone()) for x in images.split(batch_size)])


def predict(model: nn.Module, images: Tensor, labels: Tensor | None = None, batch_size: int = as_coded.BATCH) -> Tensor:
    """Decisions (N,) of a model in eval mode on float images (N, ...).

    -1, which is no class, where the outputs are not all finite: a model that breaks down is not right. ValueError for `labels`
    that the model has not.
    """
    z = outputs_of(model, images, batch_size)
    if labels is not None:
        check_range("labels", labels, z.shape[1])
    return torch.where(finite(z), z.argmax(1), -1)


def evaluate(
    model: nn.Module,
    data: Split,
    attacks: Mapping[str, Sequence[float]],
    *,
    queries: int = 300,
    seed: int = 0,
    batch_size: int | None = None,
    surrogate: nn.Module | None = None,
    early_stop: bool = True,
    norm: str = "l2",
) -> pd.DataFrame:
    """Attack every image of `data` and judge the result by `model`.

    Args:
        model: from images in [0, 1] to outputs whose argmax is the decision; judged in eval mode.
        data: images (N, C, H, W), uint8 or floats in [0, 1], and labels (N,), on the model's device: your own as
            `isce.data.Split(images, labels)`.
        attacks: attack name (or group, as for `parse`) -> levels, such as `{"pgd_un_50": [1.0, 2.0], "simba": [0.2]}`: radii in `norm`, or
            SimBA step sizes, on the [0, 1] pixel scale. norm: l2 or linf.
        queries: SimBA's budget per image. seed: of targets, random starts, orders, and a random model's own draws. The
            model's draws go on from attack to attack, so that its rows depend on what else is asked for.
        batch_size: images at a time, attacked and judged; None: as many as suit the attack, and 256 to judge.
        surrogate: for attacks named `...@transfer`, whose points are moved on to each radius (`to_the_edge`).
        early_stop: of PGD, APGD and AutoAttack; False for models that decide anew in every pass (`isce.attacks.pgd`). On a
            surrogate they never stop early: a point just behind its boundary says little about another model. The other attacks
            always do, and return unchanged what the pass that they see, or the surrogate, misclassifies at the start.

    Returns:
        A row per image, attack and level: image, attack, level, label, clean (the model's decision), adversarial (its
        decision under attack), correct, norm (of what was tested), minimal (norm of the smallest perturbation found;
        NaN where none, and by transfer: that is the surrogate's), queries (used until success; NaN for other attacks).

    Raises:
        ValueError, TypeError: an unknown attack or surface, a level <= 0, whatever the attack checks, points that prove nothing
            (`check_points`), raw logits that disagree with the model's decisions.
    """
    if not isinstance(attacks, Mapping) or not attacks:
        raise ValueError(f'want attacks with their levels, such as {{"pgd_un_50": [1.0]}}, got {attacks!r}')
    if not isinstance(data, Split):
        raise TypeError(f"want isce.data.Split(images, labels), got {type(data).__name__}")
    check_numbers(norm, batch_size=batch_size)
    if not whole(seed):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    judged_at_once = int(batch_size or as_coded.BATCH)
    decide = partial(predict, batch_size=judged_at_once)
    asked = [(name, levels) for names, levels in attacks.items() for name in parse(names) or [names]]
    for name, _ in asked:
        attack_of(name)
        if [other for other, _ in asked].count(name) > 1:
            raise ValueError(f"{name} is asked for twice: give all its levels at once")
    images, labels = data.images, data.labels
    if isinstance(images, Tensor) and images.dtype == torch.uint8:
        images = to_float(images)
    check_images(model, images, labels)
    images, labels, rows = images.detach(), labels.long(), []

    def at_levels(
        attack: Attack, seen: nn.Module, levels: Sequence[float], early_stop: bool
    ) -> Iterator[tuple[float, Tensor, Tensor | None, Tensor | None]]:
        """For each level: the level, what is to be judged there, and where they apply the smallest norms and the queries."""
        size = batch_size
        if isinstance(seen, Expectation) and images.is_cuda and size is None:
            size = max(1, default_batch(images) // seen.samples)  # the graph is that of all its passes

        def run(**options: Any) -> Any:
            draws = torch.Generator().manual_seed(seed)
            if attack.early_stop:
                options["early_stop"] = early_stop
            if attack.kind != "queries":
                options["norm"] = norm
            found = attack.run(seen, images.clone(), labels.clone(), generator=draws, batch_size=size, **options)
            if attack.kind == "queries" and not (isinstance(found, tuple) and len(found) == 2):
                raise TypeError(
                    f"{attack.label} must return images and how many queries each took, got {type(found).__name__}"
                )
            points = found[0] if attack.kind == "queries" else found
            check_points(attack, points, images, norm, options["eps"] if attack.kind == "fixed" else None)
            return found

        if attack.kind == "minimal":
            points = run()
            length = norm_of(points - images, norm)
            smallest = torch.where(decide(seen, points) != labels, length, torch.nan)
            for level in levels:
                shrink = (level / length.clamp_min(1e-12)).clamp_max(1)
                yield level, images + (points - images) * per_image(shrink, images), smallest, None
        elif attack.kind == "queries":
            for level in levels:
                points, used = run(step_size=level, queries=queries)
                yield level, points, None, used
        else:
            for level in levels:
                yield level, run(eps=level), None, None

    @cache  # however many attacks look at them
    def check_raw() -> None:
        found = []
        for of in (model, RawLogits(model)):
            with random.drawing(seed, images.device):  # the same draws for both
                found.append(outputs_of(of, images, judged_at_once))
        check_decisions(*found)

    with (
        random.drawing(seed, images.device),  # of what a randomised model draws
        held(model),
        held(model if surrogate is None else surrogate),
    ):
        clean = decide(model, images, labels)
        for name, levels in asked:
            attack, surface = attack_of(name), name.partition("@")[2]
            check_levels(name, levels)
            seen = surface_of(model, surface, surrogate)
            if surface == "raw":
                check_raw()
            stop = early_stop and surface != "transfer"
            for level, points, smallest, used in at_levels(attack, seen, levels, stop):
                if surface == "transfer" and attack.kind != "queries":
                    points, smallest = to_the_edge(points, images, level, norm), None
                decided = clean if attack.kind == "clean" else decide(model, points)
                columns = {
                    "image": np.arange(len(images)),
                    "attack": name,
                    "level": float(level),
                    "label": labels,
                    "clean": clean,
                    "adversarial": decided,
                    "correct": decided == labels,
                    "norm": norm_of(points - images, norm),
                    "minimal": np.nan if smallest is None else smallest,
                    "queries": np.nan if used is None else used,
                }
                rows.append(
                    pd.DataFrame({k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in columns.items()})
                )
    return pd.concat(rows, ignore_index=True)


def check_points(attack: Attack, points: Any, images: Tensor, norm: str, eps: float | None) -> None:
    """TypeError or ValueError where an attack returned what proves nothing: no images (N, ...) like those it was given, not finite, or
    outside of [0, 1] or, where it has one, of its ball."""

    def kind(t: Tensor) -> str:
        return f"{tuple(t.shape)} of {t.dtype} on {t.device}"

    if not isinstance(points, Tensor) or kind(points) != kind(images):
        got = kind(points) if isinstance(points, Tensor) else type(points).__name__
        raise TypeError(f"{attack.label} must return images, {kind(images)}, got {got}")
    if not bool(points.isfinite().all()):
        raise ValueError(f"{attack.label} returned numbers that are not finite: they prove nothing")
    if not len(points):
        return
    low, high = float(points.min()), float(points.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise ValueError(f"{attack.label} must return images in [0, 1], got {low:.3g} to {high:.3g}")
    if eps is not None and (far := float(norm_of(points - images, norm).max())) > 1.001 * eps + 1e-6:
        raise ValueError(f"{attack.label} went {far:.4g} far in {norm}, out of its ball of radius {eps:g}")


def check_levels(name: str, levels: Sequence[float]) -> None:
    if levels is None or real(levels):
        raise TypeError(f"{name}: want a list of levels, such as [{1.0 if levels is None else levels:g}], got {levels}")
    if not len(levels):
        raise ValueError(f"{name}: no levels given")
    if wrong := [level for level in levels if not real(level)]:
        raise TypeError(f"{name}: every level must be a number, got {wrong[0]!r}")
    if len(set(levels)) < len(levels):
        raise ValueError(f"{name}: every level once, got {list(levels)}")
    if name != "clean" and not all(0 < level < float("inf") for level in levels):
        raise ValueError(f"{name}: every level must be finite and > 0, got {list(levels)}")


def to_the_edge(points: Tensor, images: Tensor, eps: float, norm: str = "l2") -> Tensor:
    """Points (N, ...) moved away from their images to the radius eps, then into [0, 1].

    Attacks stop just behind the boundary of the model they see; another model's lies a little further as a rule.
    """
    stretch = eps / norm_of(points - images, norm).clamp_min(1e-12)
    return (images + (points - images) * per_image(stretch, images)).clamp(0, 1)


def default_levels(name: str, levels: Sequence[float], steps: Sequence[float]) -> tuple[float, ...]:
    """The levels an attack is run at: SimBA takes steps, arm A its own, clean images none, the others L2 radii."""
    own = {"clean": (0.0,), "as_coded": as_coded.EPS, "queries": steps}
    return tuple(map(float, own.get(attack_of(name).kind, levels)))


def output_means(model: nn.Module, split: Split, seed: int = 0) -> dict[str, float]:
    r"""Means over images of $f_y$ and of $\sum_{j \ne y} e^{f_j}$ (appendix A.2 says about 0.97 and 8), f the outputs; seed: of
    what a random model draws."""
    with random.drawing(seed, split.images.device):
        f = outputs_of(model, to_float(split.images)).double()
    own = f.gather(1, split.labels.unsqueeze(1))
    others = (f.logsumexp(1) + torch.log1p(-f.softmax(1).gather(1, split.labels.unsqueeze(1))[:, 0])).exp()
    return {"label_output": float(own.mean()), "others_exp_sum": float(others.clamp_max(1e300).mean())}

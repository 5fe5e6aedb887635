"""Run attacks over test images: one row per image, attack and level; accuracy with its interval; a record on disk.

An attack is named `<what>` or `<what>@<surface>`: `deepfool_50` sees the model's outputs, `deepfool_50@raw` the logits
before their normalisation. Whatever the attack saw, its images are judged by the model's own decisions.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import torch
from torch import Tensor, nn
from tqdm import tqdm

from isce import as_coded, attacks, data, methods, record
from isce.attacks import random
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
from isce.data import DATASETS, Split
from isce.models import InferenceTransform
from isce.train import Spec, fits, load_or_train, weights_of

VERSION = 1  # of everything that shapes an attack's outcome; raise it when an attack changes
CHUNK = 500  # images between two saves on a CPU, where an attack may take hours


@dataclass(frozen=True)
class Attack:
    """How an attack of `isce.attacks` is run at a list of levels.

    kind `fixed`: once per level, a radius. `as_coded`: the same with its own ε, a step or an overshoot: it has no ball.
    `minimal`: once; the perturbation found is scaled back to each level if it is longer, and tested. `queries`: once per
    level, a step size, within a query budget. `clean`: no attack.
    """

    label: str
    run: Callable[..., Any]
    kind: str = "fixed"
    early_stop: bool = False  # whether it takes this argument


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
    """What the attack sees of a model: one of `SURFACES`, or if "" its outputs. Raises ValueError where it has no such surface."""
    if not surface:
        return model
    match record.choose("surface", surface, SURFACES):
        case "raw":
            return attacks.RawLogits(model)
        case "x20":
            return attacks.Rescaled(model, 20.0)
        case "eot20":
            return attacks.Expectation(model, 20)
        case "inference":
            head = getattr(model, "head", None)
            if not isinstance(head, methods.ISCEHead):
                raise ValueError("surface 'inference' is I-SCE's (equation 2): this model has no s and m")
            return InferenceTransform(model, head.s, max(head.m, 0.0))
        case "transfer":
            if surrogate is None:
                raise ValueError("surface 'transfer' needs a surrogate model")
            return surrogate
    return model


@torch.no_grad()
def outputs_of(model: nn.Module, images: Tensor) -> Tensor:
    """Outputs (N, K) of a model in eval mode for float images (N, ...), in arm A's batches: its batch norm depends on them."""
    # Copies: a model may write into what it is given.
    return torch.cat([logits_of(model, x.clone()) for x in images.split(as_coded.BATCH)])


def predict(model: nn.Module, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Decisions (N,) of a model in eval mode on float images (N, ...).

    -1, which is no class, where the outputs are not all finite: a model that breaks down is not right. ValueError for `labels`
    that the model has not.
    """
    z = outputs_of(model, images)
    if labels is not None:
        check_range("labels", labels, z.shape[1])
    return torch.where(finite(z), z.argmax(1), -1)


def evaluate(
    model: nn.Module,
    split: Split,
    requests: dict[str, Sequence[float]],
    *,
    queries: int = 300,
    seed: int = 0,
    batch_size: int | None = None,
    surrogate: nn.Module | None = None,
    early_stop: bool = True,
    norm: str = "l2",
) -> pd.DataFrame:
    """Attack every image of `split` and judge the result by `model`.

    Args:
        model: from images in [0, 1] to outputs whose argmax is the decision; judged in eval mode.
        split: images (N, C, H, W), uint8 or floats in [0, 1], and labels (N,), on the model's device: your own as
            `isce.data.Split(images, labels)`.
        requests: attack name (or group, as for `parse`) -> levels, such as `{"pgd_un_50": [1.0, 2.0], "simba": [0.2]}`: radii in `norm`, l2 or linf, or
            SimBA step sizes.
        queries: SimBA's budget per image. seed: of targets, random starts, orders, and a random model's own draws.
        surrogate: for attacks named `...@transfer`, whose points are moved on to each radius (`to_the_edge`).
        early_stop: of PGD, APGD and AutoAttack; False for models that decide anew in every pass (`isce.attacks.pgd`). On a
            surrogate they never stop early: a point just behind its boundary says little about another model. The other attacks
            always do, and leave as it is an image that a pass, or the surrogate, has wrong from the start.

    Returns:
        A row per image, attack and level: image, attack, level, label, clean (the model's decision), adversarial (its
        decision under attack), correct, norm (of what was tested), minimal (norm of the smallest perturbation found;
        NaN where none, and by transfer: that is the surrogate's), queries (used until success; NaN for other attacks).

    Raises:
        ValueError, TypeError: an unknown attack or surface, a level <= 0, and whatever the attack checks.
    """
    if not isinstance(requests, Mapping) or not requests:
        raise ValueError(f'want attacks with their levels, such as {{"pgd_un_50": [1.0]}}, got {requests!r}')
    if not isinstance(split, Split):
        raise TypeError(f"want isce.data.Split(images, labels), got {type(split).__name__}")
    check_numbers(norm)
    asked = [(name, levels) for names, levels in requests.items() for name in parse(names) or [names]]
    for name, _ in asked:
        attack_of(name)
        if [other for other, _ in asked].count(name) > 1:
            raise ValueError(f"{name} is asked for twice: give all its levels at once")
    images, labels = split.images, split.labels
    if isinstance(images, Tensor) and images.dtype == torch.uint8:
        images = data.to_float(images)
    check_images(model, images, labels)
    images, rows = images.detach(), []

    def at_levels(
        attack: Attack, seen: nn.Module, levels: Sequence[float], early_stop: bool
    ) -> Iterator[tuple[float, Tensor, Tensor | None, Tensor | None]]:
        """For each level: the level, what is to be judged there, and where they apply the smallest norms and the queries."""
        size = batch_size
        if isinstance(seen, attacks.Expectation) and images.is_cuda and size is None:
            size = max(1, default_batch(images) // seen.samples)  # the graph is that of all its passes

        def run(**options: Any) -> Any:
            draws = torch.Generator().manual_seed(seed)
            if attack.early_stop:
                options["early_stop"] = early_stop
            if attack.kind != "queries":
                options["norm"] = norm
            return attack.run(seen, images, labels, generator=draws, batch_size=size, **options)

        if attack.kind == "minimal":
            points = run()
            length = norm_of(points - images, norm)
            smallest = torch.where(predict(seen, points) != labels, length, torch.nan)
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

    with (
        torch.random.fork_rng(devices=[images.device] if images.is_cuda else []),
        held(model),
        held(model if surrogate is None else surrogate),
    ):
        random.reseed(seed, images.device)  # of what a randomised model draws
        clean = predict(model, images, labels)
        for name, levels in asked:
            attack, surface = attack_of(name), name.partition("@")[2]
            check_levels(name, levels)
            seen = surface_of(model, surface, surrogate)
            stop = early_stop and surface != "transfer"
            for level, points, smallest, used in at_levels(attack, seen, levels, stop):
                if surface == "transfer" and attack.kind != "queries":
                    points, smallest = to_the_edge(points, images, level, norm), None
                decided = clean if attack.kind == "clean" else predict(model, points)
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


def check_levels(name: str, levels: Sequence[float]) -> None:
    if isinstance(levels, int | float):
        raise TypeError(f"{name}: want a list of levels, such as [{levels:g}], got {levels}")
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


@dataclass(frozen=True)
class Evaluation:
    """One attack on one trained model, at its levels. Two equal ones are the same record.

    n: test images, the first n of a fixed permutation (`isce.data.subset`); all of the split if None.
    """

    spec: Spec
    attack: str
    levels: tuple[float, ...]
    n: int | None = None
    queries: int = 300
    seed: int = 0
    split: str = "test"

    def __post_init__(self) -> None:
        parsed = parse(self.attack)
        if parsed != [self.attack]:
            raise ValueError(f"one attack at a time, got {self.attack!r}")
        record.choose("split", self.split, data.Data._fields)
        check_levels(self.attack, self.levels)
        if self.attack.endswith("@inference") and methods.get(self.spec.method).head is not methods.ISCEHead:
            raise ValueError(f"{self.attack}: the surface 'inference' is I-SCE's, {self.spec.method} has no s and m")
        if self.attack.endswith("@inference") and self.spec.arm == "A":
            raise ValueError(
                f"{self.attack}: arm A applies s and m in its outputs already; take the attack without a surface"
            )
        if attack_of(self.attack).kind == "queries":
            check_numbers(queries=self.queries)
            object.__setattr__(self, "queries", int(self.queries))
        else:
            object.__setattr__(self, "queries", 0)  # budgets of other attacks are part of their names
        if not whole(self.seed) or self.seed < 0:
            raise ValueError(f"seed must be a whole number, at least 0, got {self.seed!r}")
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "levels", tuple(map(float, self.levels)))
        most = dict(zip(data.Data._fields, DATASETS[self.spec.dataset].sizes, strict=True))[self.split]
        object.__setattr__(self, "n", data.check_n(self.n, most, f"{self.split} images"))

    @property
    def unsteady(self) -> bool:
        """PGD, APGD or AutoAttack whose first success need not be one where it is judged: another draw of a random model, another
        batch of arm A's, another model than the surrogate. It must not stop there, but take all its steps."""
        elsewhere = methods.get(self.spec.method).random_input or self.spec.arm == "A" or self.surrogate is not None
        return elsewhere and attack_of(self.attack).early_stop

    @property
    def surrogate(self) -> Spec | None:
        """The network that the attack is transferred from, where it is."""
        return self.spec.surrogate() if self.attack.endswith("@transfer") else None

    def payload(self) -> dict[str, Any]:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return own | {
            "spec": self.spec.payload(),
            "version": VERSION + 2 * self.unsteady,
        }  # 2 was without an early stop, 3 attacks what one draw has wrong, too

    @property
    def path(self) -> Path:
        """The record, runs/<model's run>/attacks/<attack>-<hash>.json; the rows per image lie beside it as .parquet."""
        name = self.attack.replace("@", "-on-")
        return self.spec.folder / "attacks" / f"{name}-{record.run_id(self.payload())}.json"


def load_or_evaluate(evaluation: Evaluation, device: str = "auto", progress: bool = True) -> dict[str, Any]:
    """The record of an evaluation, read from its file, or made there first (its model trained if need be).

    A record whose model has been trained anew since is made again. One of the same attack on fewer images is gone on with, and
    of one on more the first are taken: what happens to an image depends on no other (but for arm A's batch norm, and the draws of
    Random, which are by place in a batch). Schema: README.md, "Records".
    """
    if (done := _valid(evaluation)) is not None:
        return done
    place = record.pick_device(device)
    model = load_or_train(evaluation.spec, device, progress)
    through = evaluation.surrogate
    surrogate = None if through is None else load_or_train(through, device, progress)
    with record.lock(evaluation.path):
        if (done := _valid(evaluation)) is None:
            _attack(evaluation, model, surrogate, place, progress)
            done = record.read_json(evaluation.path)  # what the next reader gets, lists for tuples
    if done is None:
        raise RuntimeError(f"{evaluation.path} does not hold what was just written: is the disk full or failing?")
    return done


def find_or_evaluate(evaluation: Evaluation, device: str = "auto", progress: bool = True) -> dict[str, Any]:
    """As `load_or_evaluate`, for those who need no rows: a committed record in results/ will do, and neither the model nor the
    images need be here."""
    return find_whole(evaluation) or load_or_evaluate(evaluation, device, progress)


def _attack(
    evaluation: Evaluation, model: nn.Module, surrogate: nn.Module | None, device: torch.device, progress: bool
) -> None:
    """Make the record of an evaluation. On a CPU, CHUNK images at a time, each time saved in `_part_of` it: what a kill leaves is
    gone on with."""
    spec = evaluation.spec
    made_of: dict[str, Any] = {key: value for key, value in _here(evaluation).items() if value is not None}
    split = data.subset(getattr(data.kept(spec.dataset), evaluation.split), evaluation.n).to(device)
    earlier, rows = _begun(evaluation)
    own = [{key: earlier[key] for key in ("n", "run_id", "provenance")}] if earlier else []
    made_of["earlier"] = [*earlier.get("earlier", []), *own]
    n, begun, seconds = len(split), earlier.get("n", 0), 0.0
    at_once = device.type != "cpu" or spec.arm == "A" or evaluation.attack == "clean"
    ends = [n] if at_once else [*range(begun + CHUNK, n, CHUNK), n]
    name = f"{evaluation.attack} on {spec.run_id}"
    with tqdm(total=n, initial=begun, desc=name, leave=False, disable=not progress, mininterval=1, unit="image") as bar:
        for at, stop in pairwise([begun, *ends]):
            started = time.perf_counter()
            if at < stop:
                frame = evaluate(
                    model,
                    split.take(torch.arange(at, stop, device=device)),
                    {evaluation.attack: evaluation.levels},
                    queries=evaluation.queries,
                    seed=evaluation.seed,
                    batch_size=as_coded.BATCH if spec.arm == "A" else None,
                    surrogate=surrogate,
                    early_stop=not evaluation.unsteady,
                )
                rows.append(frame.assign(image=frame["image"] + at))
            seconds += time.perf_counter() - started
            bar.update(stop - at)
            made_of["provenance"] = record.provenance(device, DATASETS[spec.dataset].sha256, seconds, stop - begun)
            if stop < n:
                so_far = pd.concat(rows, ignore_index=True)
                so_far.attrs = made_of | {"n": stop, "run_id": evaluation.path.stem}
                _save_rows(so_far, _part_of(evaluation))
    if evaluation.attack == "clean":
        made_of["outputs"] = output_means(model, split, evaluation.seed)
    _write(evaluation, pd.concat(rows, ignore_index=True), made_of)
    _part_of(evaluation).unlink(missing_ok=True)


def _part_of(evaluation: Evaluation) -> Path:
    """Where the rows of the first images are until all are there; `attrs`: what a record says beside its results."""
    return evaluation.path.with_suffix(".part.parquet")


def _save_rows(rows: pd.DataFrame, path: Path) -> None:
    with record.atomic(path) as part:
        rows.to_parquet(part, index=False)


def _write(evaluation: Evaluation, rows: pd.DataFrame, made_of: dict[str, Any]) -> None:
    rows.attrs = {}
    _save_rows(rows, evaluation.path.with_suffix(".parquet"))
    done = {
        "kind": "attack",
        "run_id": evaluation.path.stem,
        "evaluation": evaluation.payload(),
        **made_of,
    }
    record.write_json(evaluation.path, summarize(rows, evaluation.queries) | done)


def output_means(model: nn.Module, split: Split, seed: int = 0) -> dict[str, float]:
    r"""Means over images of $f_y$ and of $\sum_{j \ne y} e^{f_j}$ (appendix A.2 says about 0.97 and 8), f the outputs; seed: of
    what a random model draws."""
    with torch.random.fork_rng(devices=[split.images.device] if split.images.is_cuda else []):
        random.reseed(seed, split.images.device)
        f = outputs_of(model, data.to_float(split.images)).double()
    own = f.gather(1, split.labels.unsqueeze(1))
    others = (f.logsumexp(1) + torch.log1p(-f.softmax(1).gather(1, split.labels.unsqueeze(1))[:, 0])).exp()
    return {"label_output": float(own.mean()), "others_exp_sum": float(others.clamp_max(1e300).mean())}


def load_rows(evaluation: Evaluation) -> pd.DataFrame:
    """The rows per image of an evaluation that has been made here (columns: see `evaluate`)."""
    return pd.read_parquet(evaluation.path.with_suffix(".parquet"))


def find(evaluation: Evaluation) -> dict[str, Any] | None:
    """The record of an evaluation in runs/ or results/; where there is none, that of the same attack on the most images, fewer
    or more (`n` says how many); None where no image was attacked. Records of other weights than those here do not count: a
    network trained here anew is not the one that the committed records are of."""
    roots, here = (record.runs_dir(), record.results_dir()), _here(evaluation)
    exact = [read_record(path) for path in (evaluation.path, record.committed(evaluation.path))]
    if found := [done for done in exact if done and fits(done, here)]:
        return found[0]
    found = [done for root in roots for done in of_any(evaluation, root) if fits(done, here)]
    return max(found, key=lambda done: done["n"], default=None)


def find_whole(evaluation: Evaluation) -> dict[str, Any] | None:
    """`find`, where it is of all the images that were asked for."""
    done = find(evaluation)
    return done if done is not None and done["n"] == evaluation.n else None


def of_any(evaluation: Evaluation, root: Path) -> list[dict[str, Any]]:
    """The records under `root` of the same attack on the same model, of however many images: all are the first of the same
    (`data.subset`)."""
    at = evaluation.path.relative_to(record.runs_dir())
    name, _, wanted = at.stem.rpartition("-")
    read = [read_record(path) for path in sorted((root / at.parent).glob(f"{name}-*.json"))]
    sizes = {"n": evaluation.n}
    return [done for done in read if done and record.run_id(done.get("evaluation", {}) | sizes) == wanted]


def read_record(path: Path) -> dict[str, Any] | None:
    """The record at `path`; None where there is none, or where what it says of its images does not agree."""
    if (done := record.read_json(path)) is None:
        return None
    try:
        agree = [
            len(result["correct"]) == 2 * -(-done["n"] // 8)
            and int(result["correct"], 16).bit_count() == round(result["accuracy"] * done["n"] / 100)
            for result in done["results"]
        ]
        return done if agree and all(agree) and isinstance(done.get("evaluation", {}), dict) else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def path_of(evaluation: Evaluation, done: dict[str, Any]) -> Path:
    """Where runs/ holds `done`, a record of the evaluation on all, fewer or more of its images."""
    return evaluation.path.with_name(f"{done['run_id']}.json")


def _begun(evaluation: Evaluation) -> tuple[dict[str, Any], list[pd.DataFrame]]:
    """What of this evaluation is there already, and its rows: the part that a kill left, or the record of fewer images, or of more
    that it is the beginning of; of those the one with the most, cut to what is asked for. Nothing of either where there is none."""
    if evaluation.spec.arm != "B":
        return {}, []
    others = [(done, path_of(evaluation, done)) for done in of_any(evaluation, record.runs_dir())]
    read = [(done, _rows(done, path)) for done, path in others if path != evaluation.path]
    left = _read_rows(_part_of(evaluation))
    if left is not None and "n" in left.attrs:
        read.append(({str(key): value for key, value in left.attrs.items()}, left))
    found = [(done, rows) for done, rows in read if rows is not None and _current(done, evaluation)]
    if not found:
        return {}, []
    done, rows = max(found, key=lambda one: one[0]["n"])
    n = min(done["n"], evaluation.n or 0)
    return done | {"n": n}, [rows[rows["image"] < n]]


def _valid(evaluation: Evaluation) -> dict[str, Any] | None:
    done = read_record(evaluation.path)
    if done is None or not _current(done, evaluation) or _rows(done, evaluation.path) is None:
        return None
    return done


def _here(evaluation: Evaluation) -> dict[str, str | None]:
    """The weights that are here now, as a record states them: the model's, and those of the model it is attacked through."""
    through = evaluation.surrogate
    return {
        "weights_sha256": weights_of(evaluation.spec),
        "surrogate_sha256": None if through is None else weights_of(through),
    }


def _current(done: dict[str, Any], evaluation: Evaluation) -> bool:
    """`fits`, and the model is here: what is gone on with must be of one."""
    here = _here(evaluation)
    return here["weights_sha256"] is not None and fits(done, here)


def _rows(done: dict[str, Any], path: Path) -> pd.DataFrame | None:
    """The rows beside a record; None unless all are there."""
    rows = _read_rows(path.with_suffix(".parquet"))
    return rows if rows is not None and len(rows) == done["n"] * len(done["results"]) else None


def _read_rows(path: Path) -> pd.DataFrame | None:
    """Rows with what `summarize` needs; None where they cannot be read (all of them: damage inside shows in no other way)."""
    try:
        rows = pd.read_parquet(path)
    except (OSError, pyarrow.ArrowException):
        return None
    needed = {"image", "attack", "level", "label", "clean", "correct", "norm", "minimal", "queries"}
    return rows if needed <= {*rows} else None


def pack(correct: np.ndarray) -> str:
    """Booleans (n,) -> hexadecimal, eight images a byte: so that a committed record still allows paired tests."""
    return np.packbits(correct.astype(bool)).tobytes().hex()


def unpack(text: str, n: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=n).astype(bool)


def minimal_norms(rows: pd.DataFrame) -> np.ndarray:
    """Rows of a minimal-norm attack at one level -> (n,) norms: 0 where wrong before, inf where none was found."""
    norms = rows["minimal"].fillna(np.inf).to_numpy()
    return np.where(rows["clean"] == rows["label"], norms, 0.0)


def summarize(frame: pd.DataFrame, queries: int = 0) -> dict[str, Any]:
    """Rows per image of one attack -> what its record states: accuracy in % with its Wilson interval, norms, queries.

    `correct` holds the outcome of each image (see `pack`), `curve` the images still right after so many queries.
    """
    first = frame[frame["level"] == frame["level"].iloc[0]]
    n, was_right = len(first), (first["clean"] == first["label"]).to_numpy()
    kind = attack_of(str(first["attack"].iloc[0])).kind
    results = []
    for level, rows in frame.groupby("level", sort=False):
        right = rows["correct"].to_numpy()
        entry = {
            "level": float(level),  # type: ignore[arg-type]
            "accuracy": 100 * int(right.sum()) / n,
            "interval": record.wilson(int(right.sum()), n),
            "correct": pack(right),
        }
        if kind == "as_coded":  # without a ball, how far it went belongs to the result
            entry["norm"] = float(rows["norm"].median())
        if rows["queries"].notna().any():  # the whole curve from one run
            used = np.where(right, np.inf, np.where(was_right, rows["queries"].to_numpy(), 0))
            grid = np.unique(np.linspace(0, queries, 61).astype(int))
            entry["curve"] = {"queries": grid.tolist(), "correct": [int((used > q).sum()) for q in grid]}
        results.append(entry)
    summary: dict[str, Any] = {
        "n": n,
        "clean_accuracy": 100 * int(was_right.sum()) / n,
        "clean_interval": record.wilson(int(was_right.sum()), n),
        "results": results,
    }
    norms = minimal_norms(first)[was_right]
    found = np.sort(norms[np.isfinite(norms)])
    if len(found):
        median = float(np.median(norms))
        summary["minimal"] = {
            "of": len(norms),
            "found": len(found),
            "median": median if np.isfinite(median) else None,
            "quantiles": [round(float(q), 6) for q in np.quantile(found, np.linspace(0, 1, 101))],
        }
    return summary

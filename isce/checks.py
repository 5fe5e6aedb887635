"""Is it gradient masking? The checklist of Carlini et al. 2019 and AutoAttack's flags, each pass or fail with its numbers.

Masking: the attack fails because the model misleads it, not because there is no adversarial image. A check is a pure
function of what was measured; `run_checks` measures. One rule decides wherever two attacks are compared image by image:
at most TOLERANCE of the images may be fooled by the second alone; an exact one-sided binomial test at LEVEL decides
whether it does (of 100 images 7, of 1,000 images 32; one image can show nothing). Attacks share their starts, so that longer and restarted runs
contain the shorter ones. What a masked model looks like, `MASKS` shows: each check fires on one of them at least.

Sources: C is Carlini et al., On Evaluating Adversarial Robustness, https://arxiv.org/abs/1902.06705, with its section;
A is AutoAttack's flags (Croce & Hein 2020, https://arxiv.org/abs/2003.01690, autoattack/checks.py); the rest is ours.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from pandas.io.formats.style import Styler
from scipy.stats import binomtest
from torch import Tensor, nn

from isce import attacks, data, evaluate, methods, record, train
from isce.attacks import random
from isce.attacks.common import (
    PROBABILITIES,
    NoGradientError,
    check_images,
    check_numbers,
    clean_logits,
    differentiable,
    held,
    image_gradient,
    logits_of,
    misled,
)
from isce.attacks.norms import norm_of, random_in_ball
from isce.attacks.objectives import Objective, ce
from isce.attacks.surfaces import check_decisions
from isce.data import DATASETS

VERSION = 2  # of everything that shapes a check's outcome
TOLERANCE, LEVEL = 0.02, 0.01
BUDGETS = {
    "digits": {"steps": 20, "restarts": 5, "queries": 100, "draws": 100}
}  # of the notebook; elsewhere run_checks' own
EPS_FACTORS = (0.25, 0.5, 1.0, 2.0)  # the curve of the check `larger eps`


@dataclass(frozen=True)
class Check:
    """passed: no sign of masking; None where the check does not apply (`says` tells why). Shares and accuracies in %."""

    name: str
    passed: bool | None
    numbers: dict[str, float]
    source: str
    says: str

    @property
    def verdict(self) -> str:
        return {True: "pass", False: "FAIL", None: "-"}[self.passed]


SOURCES = {
    "single step": "C 5.2", "more steps": "C 4.8", "restarts": "C 4.9", "larger eps": "C 5.2", "unbounded eps": "C 5.3",
    "black box": "C 5.4, A", "transfer": "C 4.5", "noise": "C 4.11", "objective": "ours", "zero gradients": "A",
    "saturation": "ours", "gradient norms": "ours", "finite differences": "ours, after C 4.7", "deepfool": "ours",
    "randomness": "A, C 4.6", "probabilities": "A", "one by one": "ours, after A",
}  # fmt: skip


def _check(name: str, passed: bool | None, numbers: dict[str, float], says: str) -> Check:
    return Check(name, passed, numbers, SOURCES[name], says)


def skipped(name: str, why: str) -> Check:
    return _check(name, None, {}, f"Not applicable: {why}.")


# The checks. fooled (n,) bool: the images that an attack turned, of the n that the model had right.


def beyond_tolerance(count: int, n: int) -> bool:
    """Whether `count` of n images is more than TOLERANCE of them allows, at LEVEL (exact, one-sided)."""
    return bool(binomtest(count, n, TOLERANCE, alternative="greater").pvalue < LEVEL)


def _too_few(name: str, n: int) -> Check | None:
    """Where not even the loss of all n images would be beyond the tolerance."""
    return None if beyond_tolerance(n, n) else skipped(name, f"{n} image can show nothing, give more")


def _percent(flags: Tensor) -> float:
    return 100 * float(flags.double().mean())


PAIRS = {  # the first attack is to fool all that the second does
    "single step": ("PGD", "one step"),  # iterated attacks are at least as strong as one step
    "more steps": ("PGD", "twice the steps"),  # the attack has converged: going on for as many steps changes nothing
    "restarts": ("PGD", "PGD with restarts"),  # no start is much luckier than another
    "black box": ("PGD", "Square"),  # gradients help: an attack without them misleads nothing that PGD does not
    "transfer": ("PGD", "transfer from SCE"),  # the model's own gradients are better than those of an SCE model
    "noise": ("PGD", "random noise"),  # many random directions of norm eps are weaker than gradients
    # Cross-entropy as peers compute it in float32. Where it fails, attack by the margin: gradients need not be masked, a
    # linear softmax classifier can fail this, too.
    "objective": ("PGD on float32 cross-entropy", "PGD on the margin"),
}


def compared(name: str, fooled: Tensor, by_other: Tensor) -> Check:
    """One of `PAIRS`: does the second attack fell, alone, more than the tolerance?"""
    if few := _too_few(name, len(fooled)):
        return few
    (what, other), n, alone = PAIRS[name], len(fooled), int((by_other & ~fooled).sum())
    left, left_by_other = _percent(~fooled), _percent(~by_other)
    numbers = {"images": n, "alone": alone, "standing": left, "standing_other": left_by_other}
    says = (
        f"{other} alone misleads {alone} of {n} images; {left:.1f} % withstand {what}, {left_by_other:.1f} % {other}."
    )
    return _check(name, not beyond_tolerance(alone, n), numbers, says[0].upper() + says[1:])


def larger_eps(fooled: Mapping[float, Tensor]) -> Check:
    """Success rises with eps: no level loses images that the one before misled, and the last misleads more than the first."""
    levels = sorted(fooled)
    lost = [int((fooled[a] & ~fooled[b]).sum()) for a, b in pairwise(levels)]
    first, last = fooled[levels[0]], fooled[levels[-1]]
    if few := _too_few("larger eps", len(first)):
        return few
    n, gained = len(first), int((last & ~first).sum())
    rises = beyond_tolerance(gained, n) or not beyond_tolerance(int((~last).sum()), n)
    standing = {f"standing_{level:g}": _percent(~fooled[level]) for level in levels}
    says = ", ".join(f"{_percent(~fooled[level]):.1f} % at {level:g}" for level in levels)
    numbers = {"images": n, "lost": max(lost), "gained": gained, **standing}
    passed = rises and not beyond_tolerance(max(lost), n)
    return _check("larger eps", passed, numbers, f"Withstand PGD: {says}; at most {max(lost)} lost in between.")


def unbounded(fooled: Tensor) -> Check:
    """With every image in reach, nothing withstands."""
    if few := _too_few("unbounded eps", len(fooled)):
        return few
    n, left = len(fooled), int((~fooled).sum())
    says = f"{left} of {n} images withstand a PGD that may reach any image."
    return _check("unbounded eps", not beyond_tolerance(left, n), {"images": n, "left": left}, says)


def zero_gradients(norms: Tensor) -> Check:
    """No image whose float32 cross-entropy has an input gradient of exactly zero; norms (n,): its largest entry, since the
    squares of an L2 norm underflow."""
    n, (zero, small, lost) = len(norms), (int(t.sum()) for t in (norms == 0, norms < 1e-8, norms.isnan()))
    says = f"The gradient of float32 cross-entropy is exactly zero for {zero} of {n} images, below 1e-8 for {small}."
    if lost:
        says += f" It is NaN for {lost}."
    return _check("zero gradients", zero + lost == 0, {"images": n, "zero": zero, "below_1e-8": small}, says)


def saturation(p: Tensor) -> Check:
    """No image whose p(y) (n,) is exactly 1 in float32, where cross-entropy has no gradient left."""
    n, one = len(p), int((p == 1).sum())
    says = f"p(y) is exactly 1 in float32 for {one} of {n} images; its median is {float(p.median()):.6f}."
    return _check("saturation", one == 0, {"images": n, "one": one, "median": float(p.median())}, says)


def gradient_norms(norms: Tensor, free: Tensor) -> Check:
    """The median gradient of cross-entropy (n,) is not rounding noise beside that of the log-odds (n,), its saturation-free form.

    Their ratio is 1 - p(y), which float32 resolves in steps of one machine epsilon: 16 of them are noise.
    """
    q = {f"q{k}": float(norms.quantile(k / 100)) for k in (5, 50, 95)}
    median = float(free.median())
    passed = float(norms.median()) > 16 * torch.finfo(norms.dtype).eps * median
    says = f"Gradient norms, quantiles 5, 50, 95 %: {q['q5']:.1e}, {q['q50']:.1e}, {q['q95']:.1e}; log-odds' median {median:.1e}."
    return _check("gradient norms", passed, {**q, "median_log_odds": median}, says)


def deepfool(on_outputs: Tensor, on_raw: Tensor) -> Check:
    """DeepFool's norms (n,), inf where it found none, are as small on the outputs as on the logits before normalisation."""
    a, b = float(on_outputs.median()), float(on_raw.median())
    says = f"DeepFool's median norm is {a:.3f} on the outputs, {b:.3f} on the raw logits."
    return _check("deepfool", a < float("inf") and a <= 1.25 * b, {"outputs": a, "raw": b}, says)


def randomness(passes: Tensor) -> Check:
    """Outputs (R, n, K) of R passes over the same images agree, each scaled to norm 1, to 1e-4."""
    unit = F.normalize(passes, dim=2)
    gap = max(float((one - unit[0]).norm(dim=1).max()) for one in unit)
    says = f"Passes over the same images differ by up to {gap:.1e}."
    return _check("randomness", gap <= 1e-4, {"gap": gap}, says)


def probabilities(outputs: Tensor) -> Check:
    """The outputs (n, K) are no probabilities: a second softmax would flatten their gradients."""
    low, high, off = float(outputs.min()), float(outputs.max()), float((outputs.sum(1) - 1).abs().max())
    says = f"Outputs lie in {low:.3g} to {high:.3g}; their sums differ from 1 by up to {off:.2g}."
    numbers = {"least": low, "largest": high, "sum_off_1": off}
    return _check("probabilities", not (low > -1e-5 and high < 1 + 1e-5 and off < 1e-4), numbers, says)


def one_by_one(together: Tensor, alone: Tensor) -> Check:
    """An image's output (n, K) does not depend on its neighbours in the batch, and not on what came before.

    AutoAttack's flag of dynamic defences looks for gradients inside the forward pass; this looks at what they would do.
    """
    gap = float((together - alone).norm(dim=1).max() / together.norm(dim=1).max().clamp_min(1e-30))
    says = f"An image's output in a batch and alone differ by up to {gap:.1e} of the largest."
    return _check("one by one", gap <= 1e-3, {"gap": gap}, says)


def finite_differences(predicted: Tensor, measured: Tensor) -> Check:
    """Changes of the log-odds over random steps (D, n): as the gradient predicts them, and as they are, by order of size."""
    rms = [change.double().square().mean(0).sqrt() for change in (predicted, measured)]
    ratio = float((rms[0] / rms[1].clamp_min(1e-30)).median())
    says = f"Over random steps the gradient predicts {ratio:.2f} times the change that is found (median image)."
    return _check("finite differences", 0.2 <= ratio <= 5, {"ratio": ratio}, says)


# Measuring


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """The objective as peers compute it: its gradient is 0 where p(y) rounds to 1 (`isce.attacks.objectives.ce` is not)."""
    return F.cross_entropy(logits, labels, reduction="none")


def input_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, objective: Objective, batch_size: int = 256
) -> Tensor:
    """The gradient of each image's objective with respect to its pixels, (n, ...)."""
    parts: list[Tensor] = []
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        leaf, logits = differentiable(model, x)
        parts.append(image_gradient(objective(logits, y, None).sum(), leaf))
    return torch.cat(parts)


def run_checks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "l2",
    surrogate: nn.Module | None = None,
    seed: int = 0,
    batch_size: int | None = 256,
    steps: int = 50,
    restarts: int = 10,
    queries: int = 1000,
    draws: int = 1000,
    objective: str = "ce",
    only: str | Iterable[str] | None = None,
) -> list[Check]:
    """Every check, or `only` those named, on the images that `model` has right: some 100 at least, since two attacks are told
    apart image by image.

    Args:
        model: images in [0, 1] -> logits (N, K); its `raw_logits`, if it has them, are compared with its outputs.
        images (N, ...) in [0, 1], labels (N,). eps: on the [0, 1] pixel scale; most informative where PGD fools some images and not all.
        surrogate: the model to transfer from. seed: of starts, noise, and a random model's own draws.
        steps, restarts, objective: of PGD, the attack in question (steps: of DeepFool too). queries: Square's. draws: of
            random noise.

    Returns:
        A `Check` for each, in the order of `only`, or of `SOURCES`.

    Raises:
        ValueError, TypeError: bad input, as in `isce.attacks`; no image that the model has right. A model without a gradient is
            no bad input: it fails what needs one.
    """
    check_numbers(norm, eps=eps, steps=steps, restarts=restarts, queries=queries, draws=draws, batch_size=batch_size)
    check_images(model, images, labels)
    images, labels, batch_size = images.detach(), labels.long(), int(batch_size or 256)
    with random.drawing(seed, images.device), held(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", PROBABILITIES)  # a check says so

        @torch.no_grad()
        def outputs(seen: nn.Module, points: Tensor, size: int = batch_size, draw: int = seed) -> Tensor:
            """(n, K); a random model makes the same draws in every call."""
            random.reseed(draw, images.device)
            return torch.cat([logits_of(seen, part) for part in points.split(size)])

        right = clean_logits(model, images, batch_size).argmax(1) == labels if len(images) else labels.bool()
        x, y = images[right], labels[right]
        if not len(x):
            raise ValueError(f"of {len(images)} images the model has none right: there is nothing to check")
        seeds, clean = random.image_seeds(x, seed), outputs(model, x)

        def judge(points: Tensor) -> Tensor:
            return misled(outputs(model, points), y)

        def run(attack: Callable[..., Tensor], target: nn.Module = model, **options: Any) -> Tensor:
            draw = torch.Generator().manual_seed(seed)
            return attack(target, x, y, generator=draw, batch_size=batch_size, **({"eps": eps, "norm": norm} | options))

        def pgd(**options: Any) -> Tensor:
            settings: dict[str, Any] = {"steps": steps, "objective": objective, "early_stop": passes().passed} | options
            return judge(run(attacks.pgd, **settings))

        def by_square() -> Check:
            if x.dim() != 4:
                return skipped("black box", "Square needs images (N, C, H, W)")
            return compared("black box", fooled(), judge(run(attacks.square, queries=queries)))

        def by_transfer() -> Check:
            if surrogate is None:
                return skipped("transfer", "no surrogate was given")
            try:  # far beyond its boundary, as the model's lies elsewhere
                found = run(attacks.pgd, surrogate, steps=steps, early_stop=False)
            except NoGradientError:
                raise ValueError("the surrogate has no gradient: nothing is transferred from it") from None
            return compared("transfer", fooled(), judge(found) | judge(evaluate.to_the_edge(found, x, eps, norm)))

        def by_noise() -> Check:
            ever, d = torch.zeros_like(y, dtype=torch.bool), x[0].numel()
            for draw in range(draws):
                step = random.signs(seeds, draw, d) if norm == "linf" else F.normalize(random.normal(seeds, draw, d))
                ever |= judge((x + eps * step.to(x).view_as(x)).clamp(0, 1))
            return compared("noise", fooled(), ever)

        def by_deepfool() -> Check:
            if not callable(getattr(model, "raw_logits", None)):
                return skipped("deepfool", "the model has no raw_logits")
            raw = attacks.RawLogits(model)
            of_raw = outputs(raw, x)
            if torch.equal(of_raw, clean):
                return skipped("deepfool", "the outputs are the raw logits")
            check_decisions(clean, of_raw)
            found = [attacks.deepfool(m, x, y, steps=steps, norm=norm, batch_size=batch_size) for m in (model, raw)]
            on_outputs, on_raw = (norm_of(z - x, norm).where(judge(z), torch.inf) for z in found)
            return deepfool(on_outputs, on_raw)

        @cache
        def fooled() -> Tensor:
            try:
                return pgd()
            except NoGradientError:  # it misleads none
                return torch.zeros_like(y, dtype=torch.bool)

        @cache
        def gradients(objective: Objective) -> Tensor:
            random.reseed(seed, images.device)
            return input_gradients(model, x, y, objective, batch_size)

        @cache
        def passes() -> Check:
            return randomness(torch.stack([outputs(model, x, draw=seed + k) for k in range(3)]))

        def by_finite_differences() -> Check:
            near = [random_in_ball(x, seeds, k, eps, norm) for k in range(8)]
            predicted = [((z - x) * gradients(ce)).flatten(1).sum(1) for z in near]
            return finite_differences(
                torch.stack(predicted), torch.stack([ce(outputs(model, z), y) - ce(clean, y) for z in near])
            )

        def by_itself() -> Check:
            if not passes().passed:
                return skipped("one by one", "the outputs are random")
            return one_by_one(clean, outputs(model, x, 1))

        every: dict[str, Callable[[], Check]] = {
            "single step": lambda: compared("single step", fooled(), judge(run(attacks.fgsm, objective=objective))),
            "more steps": lambda: compared("more steps", fooled(), pgd(steps=2 * steps, step_size=2.5 * eps / steps)),
            "restarts": lambda: compared("restarts", fooled(), pgd(restarts=restarts)),
            "larger eps": lambda: larger_eps({eps * k: fooled() if k == 1 else pgd(eps=eps * k) for k in EPS_FACTORS}),
            "unbounded eps": lambda: unbounded(pgd(eps=float(norm_of(torch.ones_like(x[:1]), norm)))),
            "black box": by_square,
            "transfer": by_transfer,
            "noise": by_noise,
            "objective": lambda: compared("objective", pgd(objective=cross_entropy), pgd(objective="margin")),
            "zero gradients": lambda: zero_gradients(gradients(cross_entropy).flatten(1).abs().amax(1)),
            "saturation": lambda: saturation(clean.softmax(1).gather(1, y[:, None])[:, 0]),
            "gradient norms": lambda: gradient_norms(norm_of(gradients(cross_entropy)), norm_of(gradients(ce))),
            "finite differences": by_finite_differences,
            "deepfool": by_deepfool,
            "randomness": passes,
            "probabilities": lambda: probabilities(clean),
            "one by one": by_itself,
        }
        asked = every if only is None else [only] if isinstance(only, str) else only
        wanted = [record.choose("check", name, every) for name in asked]

        def checked(name: str) -> Check:
            try:
                return every[name]()
            except NoGradientError as error:  # the model's
                return _check(name, False, {}, f"{str(error).capitalize()}.")

        return [checked(name) for name in wanted]


def load_or_check(
    spec: train.Spec, *, eps: float, n: int | None = None, device: str = "auto", progress: bool = True, **budgets: Any
) -> dict[str, Any]:
    """The record of the checks of `spec`, read from its run folder, or made there first (its model trained if need be).

    n: test images, as in `isce.evaluate`; all if None. budgets: of `run_checks`. The surrogate is the SCE model of the
    same data, backbone and seed. A record whose model, or surrogate, has been trained anew since is made again.
    """
    known: dict[str, Any] = dict(run_checks.__kwdefaults__ or {})
    for name in ("surrogate", "batch_size", "only"):
        del known[name]
    for name in budgets:
        record.choose("parameter of the checks", name, known)
    check_numbers(eps=eps)
    n = data.check_n(n, DATASETS[spec.dataset].sizes[2], "test images")
    parameters = {**known, **budgets, "eps": float(eps), "n": n}
    version = VERSION + methods.get(spec.method).random_input  # 2: PGD takes all its steps on a random model
    payload = {"spec": spec.payload(), "parameters": parameters, "version": [version, evaluate.VERSION]}
    path, place = spec.folder / "checks" / f"{record.run_id(payload)}.json", record.pick_device(device)
    model = train.load_or_train(spec, device, progress)
    through = None if spec.method == "sce" else spec.surrogate()
    weights = train.weights_of(spec)

    def here() -> dict[str, str | None]:
        return {"weights_sha256": weights, "surrogate_sha256": train.weights_of(through) if through else None}

    with record.lock(path):
        done = record.read_json(path)
        if done is None or not train.same_weights(done, here()):
            if progress:
                record.log(f"isce: checks of {spec.run_id}")
            surrogate = train.load_or_train(through, device, progress) if through else None
            split = data.subset(data.kept(spec.dataset).test, n).to(place)
            settings = {name: value for name, value in parameters.items() if name != "n"}
            started = time.perf_counter()
            checks = run_checks(model, data.to_float(split.images), split.labels, surrogate=surrogate, **settings)
            seconds = time.perf_counter() - started
            done = {
                "schema": record.SCHEMA, "kind": "checks", "run_id": path.stem, "spec": spec.payload(),
                "parameters": parameters, **here(),
                "checks": [_plain(check) for check in checks],
                "provenance": record.provenance(place, DATASETS[spec.dataset].sha256, seconds, n),
            }  # fmt: skip
            record.write_json(path, done)
    return done


def _plain(check: Check) -> dict[str, Any]:
    numbers = {name: value if math.isfinite(value) else None for name, value in check.numbers.items()}
    return {**dataclasses.asdict(check), "numbers": numbers}  # JSON has no infinity


def from_record(done: dict[str, Any]) -> list[Check]:
    """The checks of a record; a number that was infinite (DeepFool found nothing) is so again."""
    return [
        Check(**{**c, "numbers": {name: math.inf if v is None else v for name, v in c["numbers"].items()}})
        for c in done["checks"]
    ]


def table(results: Mapping[str, Sequence[Check]]) -> pd.DataFrame:
    """Verdicts, a row per check and a column per model: pass, FAIL, or - where the check does not apply."""
    return pd.DataFrame({model: {c.name: c.verdict for c in checks} for model, checks in results.items()})


def styled(verdicts: pd.DataFrame) -> Styler:
    """The table of `table`, coloured for a notebook."""
    colors = {"FAIL": "background-color: #bd1f01; color: white; font-weight: bold", "-": "color: #999999"}
    return record.named(verdicts.style.map(lambda verdict: colors.get(verdict, "")))


def failures(checks: Sequence[Check]) -> list[str]:
    return [check.name for check in checks if check.passed is False]


def details(results: Mapping[str, Sequence[Check]]) -> pd.DataFrame:
    """A row per model and check: model, check, verdict, says."""
    rows = [
        {"model": model, "check": c.name, "verdict": c.verdict, "says": c.says}
        for model, checks in results.items()
        for c in checks
    ]
    return pd.DataFrame(rows)


# Models built to mask: the same decisions or nearly so, and gradients that mislead.


class Masked(nn.Module):
    """`f(model, images)` in the place of `model(images)`; with `raw`, the model's own outputs are its `raw_logits`."""

    def __init__(self, model: nn.Module, f: Callable[[nn.Module, Tensor], Tensor], raw: bool = False) -> None:
        super().__init__()
        self.model, self.f = model, f
        if raw:
            self.raw_logits = model

    def forward(self, images: Tensor) -> Tensor:
        return self.f(self.model, images)


def saturated(model: nn.Module, scale: float = 1e4) -> Masked:
    """Logits so large that float32 cross-entropy is exactly 0."""
    return Masked(model, lambda f, x: scale * f(x), raw=True)


def softmaxed(model: nn.Module) -> Masked:
    """Probabilities in the place of logits."""
    return Masked(model, lambda f, x: f(x).softmax(1), raw=True)


def quantised(model: nn.Module, levels: int = 5) -> Masked:
    """Pixels rounded to `levels` values: the gradient is zero everywhere (thermometer coding and the like)."""
    return Masked(model, lambda f, x: f((x * (levels - 1)).round() / (levels - 1)))


def shattered(model: nn.Module, slope: float = 20.0, period: float = 1 / 255) -> Masked:
    """A ripple on the pixels, tiny in height and steep: gradients are right on the grid of 8-bit images, and nowhere else."""
    k = 2 * math.pi / period
    return Masked(model, lambda f, x: f(x + slope / k * (k * x).sin()))


def distracted(model: nn.Module, slope: float = 160.0, period: float = 1 / 255) -> Masked:
    """A ripple on the logits along one direction, the brightness: most of every step is spent on it."""
    k = 2 * math.pi / period

    def f(model: nn.Module, x: Tensor) -> Tensor:
        logits = model(x)
        brightness = x.flatten(1).sum(1, keepdim=True) / x[0].numel() ** 0.5
        return logits + slope / k * (k * brightness).sin() * torch.linspace(-1, 1, logits.shape[1], device=x.device)

    return Masked(model, f)


def randomised(model: nn.Module, std: float = 0.1) -> Masked:
    """Fresh Gaussian noise on the pixels in every pass."""
    return Masked(model, lambda f, x: f(x + std * torch.randn_like(x)))


def coupled(model: nn.Module) -> Masked:
    """Each image blended with the mean of its batch: outputs that depend on the neighbours, as with batch statistics."""
    return Masked(model, lambda f, x: f(0.8 * x + 0.2 * x.mean(0)))


MASKS: dict[str, Callable[[nn.Module], Masked]] = {
    f.__name__: f for f in (saturated, softmaxed, quantised, shattered, distracted, randomised, coupled)
}
BUILT_FOR = {  # what each of them must fail; most fail more
    "saturated": ("objective", "zero gradients", "saturation", "gradient norms"),
    "softmaxed": ("deepfool", "probabilities"),
    "quantised": (
        "larger eps",
        "unbounded eps",
        "black box",
        "transfer",
        "noise",
        "zero gradients",
        "finite differences",
    ),
    "shattered": ("single step", "black box", "transfer", "finite differences"),
    "distracted": ("more steps", "restarts", "transfer"),
    "randomised": ("randomness",),
    "coupled": ("one by one",),
}

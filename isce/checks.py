"""Is it gradient masking? The checklist of Carlini et al. 2019 and AutoAttack's flags, each pass or fail with its numbers.

Masking: the attack fails because the model misleads it, not because there is no adversarial image. A check is a pure
function of what was measured; `run_checks` measures. One rule decides wherever two attacks are compared image by image:
the second must not fell, alone, more than TOLERANCE of the images; an exact one-sided binomial test at LEVEL decides
whether it does (of 100 images 7, of 1,000 images 32). Attacks share their starts, so that longer and restarted runs
contain the shorter ones. What a masked model looks like, `MASKS` shows: each check fires on one of them at least.

Sources: C is Carlini et al., On Evaluating Adversarial Robustness, https://arxiv.org/abs/1902.06705, section 4 or 5;
A is AutoAttack's flags (Croce & Hein 2020, https://arxiv.org/abs/2003.01690, autoattack/checks.py); the rest is ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn

from isce import attacks, evaluate
from isce.attacks import random
from isce.attacks.common import check_images, check_numbers, differentiable, held
from isce.attacks.norms import norm_of, per_image, project, random_in_ball
from isce.attacks.objectives import Objective, ce

VERSION = 1  # of everything that shapes a check's outcome
TOLERANCE, LEVEL = 0.02, 0.01
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


def skipped(name: str, source: str, why: str) -> Check:
    return Check(name, None, {}, source, f"Not applicable: {why}.")


# The checks. felled (n,) bool: the images that an attack turned, of the n that the model had right.


def beyond_tolerance(count: int, n: int) -> bool:
    """Whether `count` of n images is more than TOLERANCE of them allows, at LEVEL (exact, one-sided)."""
    return bool(binomtest(count, n, TOLERANCE, alternative="greater").pvalue < LEVEL)


def _compare(name: str, source: str, what: str, felled: Tensor, other: str, felled_by_other: Tensor) -> Check:
    n, alone = len(felled), int((felled_by_other & ~felled).sum())
    left, left_by_other = _percent(~felled), _percent(~felled_by_other)
    numbers = {"images": n, "alone": alone, "standing": left, "standing_other": left_by_other}
    says = f"{other} alone fells {alone} of {n} images; {left:.1f} % withstand {what}, {left_by_other:.1f} % {other}."
    return Check(name, not beyond_tolerance(alone, n), numbers, source, says[0].upper() + says[1:])


def _percent(flags: Tensor) -> float:
    return 100 * float(flags.double().mean())


def single_step(felled: Tensor, by_one_step: Tensor) -> Check:
    """Iterated attacks are at least as strong as one step."""
    return _compare("single step", "C 5.2", "PGD", felled, "one step", by_one_step)


def more_steps(felled: Tensor, by_twice_the_steps: Tensor) -> Check:
    """The attack has converged: going on for as many steps again changes nothing."""
    return _compare("more steps", "C 5.3", "PGD", felled, "twice the steps", by_twice_the_steps)


def restarts(felled: Tensor, by_restarts: Tensor) -> Check:
    """No start is much luckier than another."""
    return _compare("restarts", "C 5.3", "PGD", felled, "PGD with restarts", by_restarts)


def black_box(felled: Tensor, by_square: Tensor) -> Check:
    """Gradients help: an attack without them fells nothing that PGD does not."""
    return _compare("black box", "C 5.2, A", "PGD", felled, "Square", by_square)


def transfer(felled: Tensor, by_transfer: Tensor) -> Check:
    """The model's own gradients are better than those of an SCE model."""
    return _compare("transfer", "C 5.2", "PGD", felled, "transfer from SCE", by_transfer)


def noise(felled: Tensor, by_noise: Tensor) -> Check:
    """Random directions of norm eps, many of them, are weaker than gradients."""
    return _compare("noise", "C 5.2", "PGD", felled, "random noise", by_noise)


def objectives(felled_by_ce: Tensor, by_margin: Tensor) -> Check:
    """Cross-entropy, as peers compute it in float32, serves the attack as well as the logits' margin does."""
    return _compare("objective", "ours", "PGD on float32 cross-entropy", felled_by_ce, "PGD on the margin", by_margin)


def larger_eps(felled: Mapping[float, Tensor]) -> Check:
    """Success rises with eps: no level loses images that the one before felled, and the last fells more than the first."""
    levels = sorted(felled)
    lost = [int((felled[a] & ~felled[b]).sum()) for a, b in zip(levels, levels[1:], strict=False)]
    first, last = felled[levels[0]], felled[levels[-1]]
    n, gained = len(first), int((last & ~first).sum())
    rises = beyond_tolerance(gained, n) or not beyond_tolerance(int((~last).sum()), n)
    standing = {f"standing_{level:g}": _percent(~felled[level]) for level in levels}
    says = ", ".join(f"{_percent(~felled[level]):.1f} % at {level:g}" for level in levels)
    numbers = {"images": n, "lost": max(lost), "gained": gained, **standing}
    passed = rises and not beyond_tolerance(max(lost), n)
    return Check("larger eps", passed, numbers, "C 5.2", f"Withstand PGD: {says}; at most {max(lost)} lost in between.")


def unbounded(felled: Tensor) -> Check:
    """With every image in reach, nothing withstands."""
    n, left = len(felled), int((~felled).sum())
    says = f"{left} of {n} images withstand a PGD that may reach any image."
    return Check("unbounded eps", not beyond_tolerance(left, n), {"images": n, "left": left}, "C 5.2", says)


def zero_gradients(norms: Tensor) -> Check:
    """No image whose float32 cross-entropy has an input gradient (n,) of exactly zero."""
    n, zero, small = len(norms), int((norms == 0).sum()), int((norms < 1e-8).sum())
    says = f"The gradient of float32 cross-entropy is exactly zero for {zero} of {n} images, below 1e-8 for {small}."
    return Check("zero gradients", zero == 0, {"images": n, "zero": zero, "below_1e-8": small}, "A", says)


def saturation(p: Tensor) -> Check:
    """No image whose p(y) (n,) is exactly 1 in float32, where cross-entropy has no gradient left."""
    n, one = len(p), int((p == 1).sum())
    says = f"p(y) is exactly 1 in float32 for {one} of {n} images; its median is {float(p.median()):.6f}."
    return Check("saturation", one == 0, {"images": n, "one": one, "median": float(p.median())}, "ours", says)


def gradient_norms(norms: Tensor, free: Tensor) -> Check:
    """The median gradient of cross-entropy (n,) is not rounding noise beside that of the log-odds (n,), its saturation-free form.

    Their ratio is 1 - p(y), which float32 resolves in steps of one machine epsilon: 16 of them are noise.
    """
    q = {f"q{k}": float(norms.quantile(k / 100)) for k in (5, 50, 95)}
    median = float(free.median())
    passed = float(norms.median()) > 16 * torch.finfo(norms.dtype).eps * median
    says = f"Gradient norms, quantiles 5, 50, 95 %: {q['q5']:.1e}, {q['q50']:.1e}, {q['q95']:.1e}; log-odds {median:.1e}."
    return Check("gradient norms", passed, {**q, "median_log_odds": median}, "ours", says)


def surfaces(on_outputs: Tensor, on_raw: Tensor) -> Check:
    """DeepFool's norms (n,), inf where it found none, are as small on the outputs as on the logits before normalisation."""
    a, b = float(on_outputs.median()), float(on_raw.median())
    says = f"DeepFool's median norm is {a:.3f} on the outputs, {b:.3f} on the raw logits."
    return Check("deepfool", a <= 1.25 * b < float("inf"), {"outputs": a, "raw": b}, "ours", says)


def randomness(passes: Tensor) -> Check:
    """Outputs (R, n, K) of R passes over the same images agree, each scaled to norm 1, to 1e-4."""
    unit = F.normalize(passes, dim=2)
    gap = max(float((one - unit[0]).norm(dim=1).max()) for one in unit)
    return Check("randomness", gap <= 1e-4, {"gap": gap}, "A", f"Passes over the same images differ by up to {gap:.1e}.")


def probabilities(outputs: Tensor) -> Check:
    """The outputs (n, K) are no probabilities: a second softmax would flatten their gradients."""
    low, high, off = float(outputs.min()), float(outputs.max()), float((outputs.sum(1) - 1).abs().max())
    says = f"Outputs lie in {low:.3g} to {high:.3g}; their sums differ from 1 by up to {off:.2g}."
    numbers = {"least": low, "largest": high, "sum_off_1": off}
    return Check("probabilities", not (low > -1e-5 and high < 1 + 1e-5 and off < 1e-4), numbers, "A", says)


def one_by_one(together: Tensor, alone: Tensor) -> Check:
    """An image's output (n, K) does not depend on its neighbours in the batch, and not on what came before.

    AutoAttack's flag of dynamic defences looks for gradients inside the forward pass; this looks at what they would do.
    """
    gap = float((together - alone).norm(dim=1).max() / together.norm(dim=1).max())
    says = f"An image's output in a batch and alone differ by up to {gap:.1e} of the largest."
    return Check("one by one", gap <= 1e-3, {"gap": gap}, "ours, after A", says)


def finite_differences(predicted: Tensor, measured: Tensor) -> Check:
    """Changes of the log-odds over random steps (D, n): as the gradient predicts them, and as they are, by order of size."""
    rms = [change.double().square().mean(0).sqrt() for change in (predicted, measured)]
    ratio = float((rms[0] / rms[1].clamp_min(1e-30)).median())
    says = f"Over random steps the gradient predicts {ratio:.2f} times the change that is found (median image)."
    return Check("finite differences", 0.2 <= ratio <= 5, {"ratio": ratio}, "ours", says)


# Measuring


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """The objective as peers compute it: its gradient is 0 where p(y) rounds to 1 (`isce.attacks.objectives.ce` is not)."""
    return F.cross_entropy(logits, labels, reduction="none")


def input_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, objective: Objective, batch_size: int = 256
) -> Tensor:
    """The gradient of each image's objective with respect to its pixels, (n, ...)."""
    parts = []
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        leaf = x.clone()
        parts += torch.autograd.grad(objective(differentiable(model, leaf), y, None).sum(), leaf)
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
    batch_size: int = 256,
    steps: int = 50,
    n_restarts: int = 5,
    queries: int = 1000,
    draws: int = 1000,
    objective: str | Objective = "ce",
) -> list[Check]:
    """Every check on the images that `model` has right.

    Args:
        model: images in [0, 1] -> logits (N, K); its `raw_logits`, if it has them, are compared with its outputs.
        images (N, ...) in [0, 1], labels (N,). eps: in pixel units, where neither all images fall nor none.
        surrogate: the model to transfer from. seed: of starts, noise, and a random model's own draws.
        steps, n_restarts, objective: of PGD, the attack in question. queries: Square's. draws: of random noise.

    Raises:
        ValueError, TypeError: bad input, as in `isce.attacks`; no images; none that the model has right.
    """
    check_numbers(norm, eps=eps, steps=steps, restarts=n_restarts, queries=queries, n_targets=draws, batch_size=batch_size)
    check_images(model, images, labels)
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []), held(model):
        torch.manual_seed(seed)
        right = evaluate.predict(model, images, batch_size) == labels if len(images) else labels.bool()
        x, y = images[right], labels[right]
        if not len(x):
            raise ValueError(f"of {len(images)} images the model has none right: there is nothing to check")
        return _measure(model, x, y, eps, norm, surrogate, seed, batch_size, steps, n_restarts, queries, draws, objective)


def _measure(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str, surrogate: nn.Module | None, seed: int,
    batch_size: int, steps: int, n_restarts: int, queries: int, draws: int, objective: str | Objective,
) -> list[Check]:  # fmt: skip
    seeds = random.image_seeds(x, seed)

    def judge(points: Tensor) -> Tensor:
        return evaluate.predict(model, points, batch_size) != y

    def run(attack: Callable[..., Tensor], target: nn.Module = model, **options: Any) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        return attack(target, x, y, generator=draw, batch_size=batch_size, **{"eps": eps, "norm": norm} | options)

    def pgd(**options: Any) -> Tensor:
        return judge(run(attacks.pgd, **{"steps": steps, "objective": objective} | options))

    @torch.no_grad()
    def outputs(points: Tensor, size: int = batch_size) -> Tensor:
        """In a random model the same draws for every call, batch by batch."""
        torch.manual_seed(seed)
        return torch.cat([model(part) for part in points.split(size)])

    def by_noise() -> Tensor:
        felled = torch.zeros_like(y, dtype=torch.bool)
        for draw in range(draws):
            d = x[0].numel()
            step = random.signs(seeds, draw, d) if norm == "linf" else F.normalize(random.normal(seeds, draw, d))
            felled |= judge(project(x + eps * step.to(x).view_as(x), x, eps, norm))
        return felled

    def by_transfer(source: nn.Module) -> Tensor:
        found = run(attacks.pgd, source, steps=steps)  # just beyond the surrogate's boundary: go on to the edge of the ball
        stretch = eps / norm_of(found - x, norm).clamp_min(1e-12)
        return judge(found) | judge((x + (found - x) * per_image(stretch, x)).clamp(0, 1))

    def deepfool(seen: nn.Module) -> Tensor:
        points = attacks.deepfool(seen, x, y, norm=norm, batch_size=batch_size)
        return norm_of(points - x, norm).where(judge(points), torch.inf)

    felled = pgd()
    curve = {eps * k: felled if k == 1 else pgd(eps=eps * k) for k in EPS_FACTORS}
    clean, whole = outputs(x), float(norm_of(torch.ones_like(x[:1]), norm))
    naive = norm_of(input_gradients(model, x, y, cross_entropy, batch_size))
    torch.manual_seed(seed)
    slope = input_gradients(model, x, y, ce, batch_size)
    near = [random_in_ball(x, seeds, k, eps, norm) for k in range(8)]
    torch.manual_seed(seed + 1)
    passes = torch.stack([torch.cat([model(part).detach() for part in x.split(batch_size)]) for _ in range(3)])
    random_model = randomness(passes)
    has_raw = callable(getattr(model, "raw_logits", None))
    return [
        single_step(felled, judge(run(attacks.fgsm, objective=objective))),
        more_steps(felled, pgd(steps=2 * steps, step_size=2.5 * eps / steps)),
        restarts(felled, pgd(restarts=n_restarts)),
        larger_eps(curve),
        unbounded(pgd(eps=whole)),
        black_box(felled, judge(run(attacks.square, queries=queries)))
        if x.dim() == 4 else skipped("black box", "C 5.2, A", "Square needs images (N, C, H, W)"),
        transfer(felled, by_transfer(surrogate))
        if surrogate is not None else skipped("transfer", "C 5.2", "no surrogate was given"),
        noise(felled, by_noise()),
        objectives(pgd(objective=cross_entropy), pgd(objective="margin")),
        zero_gradients(naive),
        saturation(clean.softmax(1).gather(1, y[:, None])[:, 0]),
        gradient_norms(naive, norm_of(slope)),
        finite_differences(
            torch.stack([((z - x) * slope).flatten(1).sum(1) for z in near]),
            torch.stack([ce(outputs(z), y) - ce(clean, y) for z in near]),
        ),
        surfaces(deepfool(model), deepfool(attacks.RawLogits(model)))
        if has_raw else skipped("deepfool", "ours", "the model has no raw_logits"),
        random_model,
        probabilities(clean),
        one_by_one(clean, outputs(x, 1))
        if random_model.passed else skipped("one by one", "ours, after A", "the outputs are random"),
    ]  # fmt: skip


# Models built to mask: the same decisions or nearly so, and gradients that mislead.


class Masked(nn.Module):
    """A model behind functions of its images and of its outputs; `raw_logits` are the model's own outputs, if asked for."""

    def __init__(
        self, model: nn.Module, before: Callable[[Tensor], Tensor] | None, after: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after
        if before is None:
            self.raw_logits = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images if self.before is None else self.before(images))
        return logits if self.after is None else self.after(logits)


def saturated(model: nn.Module, scale: float = 1e4) -> Masked:
    """Logits so large that float32 cross-entropy is exactly 0."""
    return Masked(model, None, lambda logits: scale * logits)


def quantised(model: nn.Module, levels: int = 9) -> Masked:
    """Pixels rounded to `levels` values: the gradient is zero everywhere (thermometer coding and the like)."""
    return Masked(model, lambda x: (x * (levels - 1)).round() / (levels - 1))


def randomised(model: nn.Module, std: float = 0.1) -> Masked:
    """Fresh Gaussian noise on the pixels in every pass."""
    return Masked(model, lambda x: x + std * torch.randn_like(x))


def shattered(model: nn.Module, slope: float = 20.0, period: float = 1 / 255) -> Masked:
    """A ripple on the pixels, tiny in height and steep: gradients are right on the grid of 8-bit images, and nowhere else."""
    k = 2 * torch.pi / period
    return Masked(model, lambda x: x + slope / k * (k * x).sin())


def softmaxed(model: nn.Module) -> Masked:
    """Probabilities in the place of logits."""
    return Masked(model, None, lambda logits: logits.softmax(1))


def coupled(model: nn.Module) -> Masked:
    """Outputs relative to the batch's mean, as with batch statistics at inference."""
    return Masked(model, None, lambda logits: logits - 0.5 * logits.mean(0))


MASKS: dict[str, Callable[[nn.Module], Masked]] = {
    f.__name__: f for f in (saturated, quantised, randomised, shattered, softmaxed, coupled)
}

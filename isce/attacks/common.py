"""What every attack shares: checks of its input, the model held still, batches, and images left alone."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isce.attacks import random
from isce.attacks.norms import NORMS, per_image
from isce.attacks.objectives import margin


class Batch(NamedTuple):
    """What an attack works on: n images that the model classifies correctly; without early stop, all."""

    images: Tensor  # (n, ...) in [0, 1]
    labels: Tensor  # (n,) int64
    targets: Tensor | None  # (n,) int64, in targeted attacks
    seeds: Tensor  # (n,) int64, see isce.attacks.random
    logits: Tensor  # (n, K) of the clean images
    places: Tensor  # (n,) where they stand among the caller's images


DEFAULTED = ("step_size", "batch_size", "freq_dims")  # where None means a default


def whole(value: object) -> bool:
    """Whether it is a whole number, NumPy's too; True and False are none."""
    return isinstance(value, Integral) and real(value)


def real(value: object) -> bool:
    """Whether it is a number, NumPy's too; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_numbers(norm: str = "l2", **numbers: float | None) -> None:
    """One clear error for an unknown norm, and for hyperparameters that must be positive; None where it stands for a default.

    `steps`, `queries`, `restarts`, `num_classes`, `n_targets`, `batch_size` and the like are counts, the rest lengths.
    """
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}: choose 'l2' or 'linf'")
    counts = ("steps", "queries", "restarts", "num_classes", "n_targets", "batch_size", "freq_dims", "draws", "samples")
    for name, value in numbers.items():
        if value is None and name in DEFAULTED:
            continue
        count = name in counts
        if value is None or not (whole(value) if count else real(value)):
            what = "an integer" if count else "a number"
            raise TypeError(f"{name} must be {what}, got {value!r} ({type(value).__name__})")
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name} must be {'at least 1' if count else 'finite and > 0'}, got {value}")
        if name in ("eps", "step_size") and value > 1e15:  # its square is still a float32
            raise ValueError(f"{name} must be at most 1e15, got {value}: pixels lie in [0, 1]")


def check_images(model: nn.Module, images: Tensor, labels: Tensor, spatial: str = "") -> None:
    """TypeError or ValueError unless images (N, ...) are float32 or float64 in [0, 1] and labels (N,) integers beside them.

    `spatial` names what needs images (N, C, H, W). Half precision is too coarse for an attack: rounding moves points out of
    their ball, and no margin is clear of it (`clearly_wrong`); the model may compute in it all the same.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        way = (
            "images.float() / 255" if isinstance(images, Tensor) else "torch.as_tensor(...), or torch.cat over a loader"
        )
        raise TypeError(f"images must be a float tensor in [0, 1], got {kind}: convert, e.g. {way}")
    if images.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"images must be float32 or float64, got {images.dtype}: give images.float() and let the model cast what it gets"
        )
    if images.dim() < 2:
        raise ValueError(f"images must be a batch (N, ...), got shape {tuple(images.shape)}: try images[None]")
    if len(images) and not images[0].numel():
        raise ValueError(f"images have no pixels, got shape {tuple(images.shape)}")
    if spatial and images.dim() != 4:
        raise ValueError(f"{spatial} needs images (N, C, H, W), got shape {tuple(images.shape)}")
    check_classes("labels", labels, images)
    lost = int((~images.isfinite()).sum())
    if lost:
        raise ValueError(
            f"images must be finite and in [0, 1], {lost} of their numbers are not finite: leave such images out"
        )
    low, high = (float(images.detach().min()), float(images.detach().max())) if images.numel() else (0.0, 1.0)
    if low < 0 or high > 1:
        way = "images / 255" if low >= 0 and high > 16 else "move normalisation into the model"
        way = "images.clamp(0, 1)" if max(-low, high - 1) < 1e-3 else way
        raise ValueError(f"images must be finite and in [0, 1], got {low:.9g} to {high:.9g}: {way}")


def check_classes(name: str, classes: Tensor, images: Tensor) -> None:
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.dtype == torch.bool:
        kind = classes.dtype if isinstance(classes, Tensor) else type(classes).__name__
        raise TypeError(f"{name} must be an integer tensor, got {kind}")
    if classes.shape != images.shape[:1]:
        raise ValueError(f"{name} must have shape ({len(images)},), one per image, got {tuple(classes.shape)}")
    if classes.device != images.device:
        raise ValueError(f"{name} are on {classes.device}, images on {images.device}: move them together")


def check_range(name: str, given: Tensor, classes: int) -> None:
    """ValueError unless `given` (N,) are classes of a model that has so many."""
    given = given.long()  # unsigned ones have no minimum
    if len(given) and not 0 <= int(given.min()) <= int(given.max()) < classes:
        raise ValueError(f"{name} must be in 0 .. {classes - 1}, got {int(given.min())} .. {int(given.max())}")


PROBABILITIES = "the model seems to return probabilities"


def check_logits(logits: Tensor, labels: Tensor, targets: Tensor | None = None, stacklevel: int = 4) -> None:
    """ValueError for `logits_of` a model with one class or not finite, or for classes that they lack; UserWarning for
    probabilities, at the line `stacklevel` calls up."""
    if logits.shape[1] < 2:
        raise ValueError("the model has one class: an attack needs at least two")
    if not bool(logits.isfinite().all()):
        raise ValueError("the model returns NaN or infinite logits on the clean images")
    check_range("labels", labels, logits.shape[1])
    if targets is not None:
        check_range("targets", targets, logits.shape[1])
    if targets is not None and bool((targets == labels).any()):
        raise ValueError("some targets equal the label: a target must be a wrong class")
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
        warnings.warn(f"{PROBABILITIES}: attacks need logits, remove its softmax", stacklevel=stacklevel)


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, its parameters asking for no gradient, gradients on whatever the caller's mode.

    Each submodule's own mode and each parameter's own `requires_grad` come back after. An attack differentiates by images
    alone; a graph that leaves the parameters out keeps fewer activations. Frozen TorchScript has no mode, and what
    `torch.export` makes keeps the one it was exported in.
    """
    modes = [(module, True) for module in model.modules() if getattr(module, "training", False)]
    wanted = [p for p in model.parameters() if p.requires_grad and not p.is_inference()]
    try:
        for module, _ in modes:  # one by one: what torch.export makes refuses, and must not keep its neighbours from it
            with suppress(NotImplementedError):
                module.eval()
        for p in wanted:
            p.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for p in wanted:
            p.requires_grad_(True)


IN_PLACE = "the model changes its input in place: let it begin with x.clone(), or without inplace=True"


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """model(x), (n, K), in the images' dtype, whatever the model computes in; TypeError or ValueError for what are no logits, and
    for a model that does not take images of this dtype, or was made where no gradient is kept."""
    try:
        logits = model(x)
    except RuntimeError as error:
        says = str(error).partition("\n")[0]
        if "Inference tensors" in says:
            raise ValueError(
                "the model was made under torch.inference_mode, where no gradient passes: load it outside"
            ) from error
        if "in-place operation" in says:
            raise ValueError(IN_PLACE) from error
        if "same dtype" in says or ("should be the same" in says and says.count("cuda") != 1):  # once: another device
            raise TypeError(f"the model does not take images of {x.dtype}, convert one of them: {says}") from error
        raise
    if not isinstance(logits, Tensor):
        raise TypeError(f"the model must return its logits alone, a tensor (N, K), got {type(logits).__name__}")
    if logits.dim() != 2 or len(logits) != len(x):
        raise ValueError(f"the model must return logits of shape ({len(x)}, K), got {tuple(logits.shape)}")
    return logits.to(x.dtype)


def clean_logits(model: nn.Module, images: Tensor, size: int) -> Tensor:
    """`logits_of` images (N, ...), (N, K), `size` at a time; ValueError where the model writes into what it is given, which would
    change the caller's images. The model is `held`."""
    given, parts = images.detach().clone(), []
    with torch.no_grad():
        for part in given.split(size):
            parts.append(logits_of(model, part))
    if not torch.equal(given, images):
        raise ValueError(IN_PLACE)
    return torch.cat(parts)


NO_GRADIENT = "the model's output has no gradient: attack it with simba or square, or by transfer"


class NoGradientError(ValueError):
    """No gradient of the model's outputs reaches its images."""


def differentiable(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """x as a leaf of its own that asks for its gradient, and its logits (n, K); NoGradientError where none reaches it.

    The caller's tensor is left alone: were it the leaf, every name it goes by would hold the step's graph.
    """
    leaf = x.detach().requires_grad_()
    logits = logits_of(model, leaf)
    if not logits.requires_grad:
        raise NoGradientError(NO_GRADIENT)
    return leaf, logits


def image_gradient(value: Tensor, leaf: Tensor, retain_graph: bool = False) -> Tensor:
    """The gradient of a number in the images of `differentiable`; NoGradientError where only parameters have one."""
    (found,) = torch.autograd.grad(value, leaf, retain_graph=retain_graph, allow_unused=True)
    if found is None:
        raise NoGradientError(NO_GRADIENT)
    return found


def default_batch(images: Tensor, asked: int | None = None) -> int:
    """Images at a time: as many as the caller `asked` for, if he did.

    On a CPU some 400,000 pixels and no more than 512 images, as its caches hold them (with 1000, LeNet-5's SimBA takes 1.9
    times as long; with 512 of CIFAR-10 the 8-layer CNN takes 1.3 times as long as with 128). On a GPU 2048 images of
    CIFAR-10's size, where the graph of ResNet-32 takes some 12 GB, and as many pixels of larger ones.
    """
    if asked or not len(images):
        return int(asked or 1)
    pixels, most = (401_408, 512) if images.device.type == "cpu" else (2048 * 3072, 2048)
    return min(most, max(8, pixels // max(images[0].numel(), 1)))


def finite(points: Tensor) -> Tensor:
    """(n, ...) -> (n,) whether all of a point's numbers are."""
    return points.flatten(1).isfinite().all(1)


def misled(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """(n, K), (n,) -> (n,) whether the decision is wrong, or, with targets, theirs. A model that breaks down, with logits that
    are not all finite, is right about nothing."""
    decided = logits.argmax(1)
    return (decided != labels if targets is None else decided == targets) | ~finite(logits)


def rounding(logits: Tensor) -> Tensor:
    """(n, K) -> (n,) what logits may differ by between batch sizes: 8 machine epsilons of the largest, 1e-6 of it."""
    return 8 * torch.finfo(logits.dtype).eps * logits.abs().amax(1)


def clearly_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """(n,) whether the margin exceeds rounding sixteenfold: nearer to the boundary another batch may disagree. The rounding is
    that of the images' dtype: a model that computes in half precision or TF32 rounds more, and its margins may be less clear.
    Where logits are not all finite it is, as in `misled`."""
    return (margin(logits, labels) > 16 * rounding(logits)) | ~finite(logits)


def likely_wrong(batch: Batch, n: int) -> Tensor:
    """The (at most) n most likely wrong classes k of the clean images, likeliest first: (n_images, k)."""
    others = batch.logits.scatter(1, batch.labels[:, None], float("-inf"))
    return others.topk(min(n, others.shape[1] - 1), dim=1).indices


def launch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Callable[[Batch], Tensor],
    *,
    targeted: bool = False,
    targets: Tensor | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    everything: bool = False,
) -> Tensor:
    """Check the input, leave misclassified images as they are, targeted or not, and `attack` the rest in batches of `batch_size`,
    smaller ones where a GPU's memory is short. With `everything` misclassified ones are attacked, too: a random model may be right about
    them the next time, or the model that they are transferred to.

    Targeted without targets: a uniformly random wrong class for each image, from its seed.
    Returns the adversarial images, (N, ...) as the images. Errors are those of the checks above.
    """
    check_numbers(batch_size=batch_size)
    check_images(model, images, labels)
    if targets is not None:
        if not targeted:
            raise ValueError("targets were given: say targeted=True")
        check_classes("targets", targets, images)
    if not len(images):
        return images.detach().clone()
    size, key = default_batch(images, batch_size), random.draw_key(generator)
    with held(model):
        clean, adversarial = images.detach().clone(), images.detach().clone()  # not the caller's inference tensors
        logits = clean_logits(model, clean, size)
        check_logits(logits, labels, targets)
        labels, targets = labels.long(), None if targets is None else targets.long()
        seeds = torch.cat([random.image_seeds(x, key) for x in clean.split(size)])
        if targeted and targets is None:
            k = logits.shape[1]
            # The stream of the first start's radius: with another the targets would not be those of the records.
            targets = (labels + 1 + (random.uniform(seeds, -1, 1)[:, 0] * (k - 1)).long()) % k
        pending = list(((logits.argmax(1) == labels) | everything).nonzero()[:, 0].split(size))
        while pending:
            index = pending.pop(0)
            if not len(index):  # nothing to attack: `split` gives one empty part
                break
            t = None if targets is None else targets[index]
            batch = Batch(clean[index], labels[index], t, seeds[index], logits[index], index)
            try:
                found = attack(batch).detach()
            except torch.OutOfMemoryError:
                if len(index) == 1:
                    raise
                found = None
            if found is None:  # here, where nothing holds the failed batch's graph any more
                size = -(-len(index) // 2)
                pending = list(torch.cat([index, *pending]).split(size))
                warnings.warn(
                    f"memory is short: going on with {size} images at a time (batch_size={size} avoids this)",
                    stacklevel=3,
                )
                continue
            valid = finite(found)  # gradients may be NaN where the clean logits were not
            if not bool(valid.all()):
                lost = f"{int((~valid).sum())} of {len(valid)} images"
                warnings.warn(
                    f"the attack's images became NaN for {lost}: these are returned unchanged and show no robustness",
                    stacklevel=3,
                )
            adversarial[index] = torch.where(per_image(valid, found), found, batch.images)
    return adversarial

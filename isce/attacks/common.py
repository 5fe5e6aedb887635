"""What every attack shares: checks of its input, the model held still, batches, and images left alone."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isce.attacks import random
from isce.attacks.norms import NORMS, per_image
from isce.attacks.objectives import margin


class Batch(NamedTuple):
    """What an attack works on: n images that the model classifies correctly."""

    images: Tensor  # (n, ...) in [0, 1]
    labels: Tensor  # (n,) int64
    targets: Tensor | None  # (n,) int64, in targeted attacks
    seeds: Tensor  # (n,) int64, see isce.attacks.random
    logits: Tensor  # (n, K) of the clean images
    places: Tensor  # (n,) where they stand among the caller's images


DEFAULTED = ("step_size", "batch_size", "freq_dims")  # where None means a default


def check_numbers(norm: str = "l2", **numbers: float | None) -> None:
    """One clear error for an unknown norm, and for hyperparameters that must be positive; None where it stands for a default.

    `steps`, `queries`, `restarts`, `num_classes`, `n_targets`, `batch_size` and the like are counts, the rest lengths.
    """
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}: choose 'l2' or 'linf'")
    counts = ("steps", "queries", "restarts", "num_classes", "n_targets", "batch_size", "freq_dims")
    for name, value in numbers.items():
        if value is None and name in DEFAULTED:
            continue
        kind = int if name in counts else Real
        if isinstance(value, bool) or not isinstance(value, kind):
            what = "an integer" if kind is int else "a number"
            raise TypeError(f"{name} must be {what}, got {value!r} ({type(value).__name__})")
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name} must be {'at least 1' if kind is int else 'finite and > 0'}, got {value}")


def check_images(model: nn.Module, images: Tensor, labels: Tensor, spatial: str = "") -> None:
    """TypeError or ValueError unless images (N, ...) are floats in [0, 1] and labels (N,) integers beside them.

    `spatial` names what needs images (N, C, H, W).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a float tensor in [0, 1], got {kind}: convert, e.g. images.float() / 255")
    if images.dim() < 2:
        raise ValueError(f"images must be a batch (N, ...), got shape {tuple(images.shape)}: try images[None]")
    if spatial and images.dim() != 4:
        raise ValueError(f"{spatial} needs images (N, C, H, W), got shape {tuple(images.shape)}")
    check_classes("labels", labels, images)
    if images.numel() and not (bool(images.isfinite().all()) and images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images must be finite and in [0, 1], got {images.min():.4g} to {images.max():.4g}"
            f" and {int((~images.isfinite()).sum())} not finite: move normalisation into the model"
        )


def check_classes(name: str, classes: Tensor, images: Tensor) -> None:
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.dtype == torch.bool:
        kind = classes.dtype if isinstance(classes, Tensor) else type(classes).__name__
        raise TypeError(f"{name} must be an integer tensor, got {kind}")
    if classes.shape != images.shape[:1]:
        raise ValueError(f"{name} must have shape ({len(images)},), one per image, got {tuple(classes.shape)}")
    if classes.device != images.device:
        raise ValueError(f"{name} are on {classes.device}, images on {images.device}: move them together")


def check_logits(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> None:
    """ValueError for `logits_of` a model with one class or not finite, or for classes that they lack; UserWarning for
    probabilities."""
    if logits.shape[1] < 2:
        raise ValueError("the model has one class: an attack needs at least two")
    if not bool(logits.isfinite().all()):
        raise ValueError("the model returns NaN or infinite logits on the clean images")
    for name, given in (("labels", labels), ("targets", labels if targets is None else targets)):
        low, high = int(given.min()), int(given.max())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(f"{name} must be in 0 .. {logits.shape[1] - 1}, got {low} .. {high}")
    if targets is not None and bool((targets == labels).any()):
        raise ValueError("some targets equal the label: a target must be a wrong class")
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
        warnings.warn("the model seems to return probabilities: attacks need logits, remove its softmax", stacklevel=4)


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, its parameters asking for no gradient, gradients on whatever the caller's mode.

    Each submodule's own mode and each parameter's own `requires_grad` come back after. An attack differentiates by images
    alone; a graph that leaves the parameters out keeps fewer activations.
    """
    modes = [(module, module.training) for module in model.modules()]
    wanted = [p for p in model.parameters() if p.requires_grad]
    try:
        model.eval()
        for p in wanted:
            p.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for p in wanted:
            p.requires_grad_(True)


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """model(x), (n, K), in the images' dtype, whatever the model computes in; TypeError or ValueError for what are no logits."""
    logits = model(x)
    if not isinstance(logits, Tensor):
        raise TypeError(f"the model must return its logits alone, a tensor (N, K), got {type(logits).__name__}")
    if logits.dim() != 2 or len(logits) != len(x):
        raise ValueError(f"the model must return logits of shape ({len(x)}, K), got {tuple(logits.shape)}")
    return logits.to(x.dtype)


def differentiable(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """x as a leaf of its own that asks for its gradient, and its logits (n, K); ValueError where no gradient reaches it.

    The caller's tensor is left alone: were it the leaf, every name it goes by would hold the step's graph.
    """
    leaf = x.detach().requires_grad_()
    logits = logits_of(model, leaf)
    if not logits.requires_grad:
        raise ValueError("the model's output has no gradient: attack it with simba or square, or by transfer")
    return leaf, logits


def default_batch(images: Tensor) -> int:
    """Images at a time where the caller does not say.

    On a CPU some 400,000 pixels and no more than 512 images, as its caches hold them (with 1000, LeNet-5's SimBA takes 1.9
    times as long; with 512 of CIFAR-10 the 8-layer CNN takes 1.3 times as long as with 128). On a GPU 2048 images of
    CIFAR-10's size, where the graph of ResNet-32 takes some 12 GB, and as many pixels of larger ones.
    """
    if not len(images):
        return 1
    pixels, most = (401_408, 512) if images.device.type == "cpu" else (2048 * 3072, 2048)
    return min(most, max(8, pixels // max(images[0].numel(), 1)))


def finite(points: Tensor) -> Tensor:
    """(n, ...) -> (n,) whether all of a point's numbers are."""
    return points.flatten(1).isfinite().all(1)


def rounding(logits: Tensor) -> Tensor:
    """(n, K) -> (n,) what logits may differ by between batch sizes: 8 machine epsilons of the largest, 1e-6 of it."""
    return 8 * torch.finfo(logits.dtype).eps * logits.abs().amax(1)


def clearly_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """(n,) whether the margin exceeds rounding sixteenfold: nearer to the boundary another batch may disagree."""
    return margin(logits, labels) > 16 * rounding(logits)


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
) -> Tensor:
    """Check the input, leave misclassified images as they are, and `attack` the rest in batches of `batch_size`.

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
    size, key = batch_size or default_batch(images), random.draw_key(generator)
    with held(model):
        clean, adversarial = images.detach().clone(), images.detach().clone()  # not the caller's inference tensors
        with torch.no_grad():
            logits = torch.cat([logits_of(model, x) for x in clean.split(size)])
        if not torch.equal(clean, adversarial):
            raise ValueError(
                "the model changes its input in place: let it begin with x.clone(), or without inplace=True"
            )
        check_logits(logits, labels, targets)
        labels, targets = labels.long(), None if targets is None else targets.long()
        seeds = torch.cat([random.image_seeds(x, key) for x in clean.split(size)])
        if targeted and targets is None:
            k = logits.shape[1]
            targets = (labels + 1 + (random.uniform(seeds, -1, 1)[:, 0] * (k - 1)).long()) % k
        for index in (logits.argmax(1) == labels).nonzero()[:, 0].split(size):
            if not len(index):  # nothing to attack: `split` gives one empty part
                break
            t = None if targets is None else targets[index]
            batch = Batch(clean[index], labels[index], t, seeds[index], logits[index], index)
            found = attack(batch).detach()
            valid = finite(found)  # gradients may be NaN where the clean logits were not
            if not bool(valid.all()):
                lost = f"{int((~valid).sum())} of {len(valid)} images"
                warnings.warn(
                    f"the model's gradients became NaN for {lost}: returned unchanged, they prove nothing", stacklevel=3
                )
            adversarial[index] = torch.where(per_image(valid, found), found, batch.images)
    return adversarial

"""AutoAttack, the standard ensemble: Croce & Hein 2020, https://arxiv.org/abs/2003.01690."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Literal, overload

import torch
from torch import Tensor, nn

from isce.attacks.apgd import apgd, apgd_targeted
from isce.attacks.common import (
    PROBABILITIES,
    check_images,
    check_logits,
    check_numbers,
    clean_logits,
    default_batch,
    held,
    misled,
)
from isce.attacks.fab import fab
from isce.attacks.square import square

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


@overload
def autoattack(model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, norm: str = ..., steps: int = ...,
               queries: int = ..., attacks: Sequence[str] = ..., return_record: Literal[False] = ...,
               early_stop: bool = ..., batch_size: int | None = ...,
               generator: torch.Generator | None = ...) -> Tensor: ...  # fmt: skip
@overload
def autoattack(model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, norm: str = ..., steps: int = ...,
               queries: int = ..., attacks: Sequence[str] = ..., return_record: Literal[True],
               early_stop: bool = ..., batch_size: int | None = ...,
               generator: torch.Generator | None = ...) -> tuple[Tensor, list[str]]: ...  # fmt: skip
def autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "l2",
    steps: int = 100,
    queries: int = 5000,
    attacks: Sequence[str] = STANDARD,
    return_record: bool = False,
    early_stop: bool = True,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor | tuple[Tensor, list[str]]:
    """Attacks from the cheapest to the most expensive, each on the images that are still classified correctly.

    The standard cascade is APGD on cross-entropy, APGD on targeted DLR (9 classes), targeted FAB, Square. "apgd-dlr" is
    there too: AutoAttack's version for randomised models is
    autoattack(Expectation(model, 20), ..., attacks=("apgd-ce", "apgd-dlr"), early_stop=False): APGD takes all its steps, on
    images that one draw has wrong as well. With fewer than 3 classes (targeted DLR: 4) the margin takes its place.
    Square's schedule is that of its paper, stretched to `queries`; AutoAttack's code leaves it as it is for 10,000.

    images (N, ...) in [0, 1], (N, C, H, W) for Square; labels (N,); eps in [0, 1] pixels; `steps` of APGD and FAB, `queries`
    of Square. Returns (N, ...): the first misclassified point, or the first attack's where no attack succeeded; with return_record
    also a list of N names: the attack that succeeded, "clean" where it was misclassified already (with early_stop), "robust" where nothing did. Raises ValueError or TypeError on bad input.
    """
    check_numbers(norm, eps=eps, steps=steps, queries=queries, batch_size=batch_size)
    attacks = (attacks,) if isinstance(attacks, str) else attacks
    runs = {
        "apgd-ce": partial(apgd, objective="ce", steps=steps, early_stop=early_stop),
        "apgd-dlr": partial(apgd, objective="dlr", steps=steps, early_stop=early_stop),
        "apgd-t": partial(apgd_targeted, objective="dlr", steps=steps, early_stop=early_stop),
        "fab-t": partial(fab, steps=steps),
        "square": partial(square, queries=queries),
    }
    if not attacks:
        raise ValueError(f"no attacks given, nothing would be proved: choose from {', '.join(runs)}")
    if unknown := [name for name in attacks if name not in runs]:
        raise ValueError(f"unknown attack {unknown[0]!r}: choose from {', '.join(runs)}")
    check_images(model, images, labels, spatial="square" if "square" in attacks else "")
    labels = labels.long()
    common = {"norm": norm, "eps": eps, "batch_size": batch_size, "generator": generator}
    size = default_batch(images, batch_size)

    def predict(x: Tensor) -> Tensor:
        with held(model):
            return clean_logits(model, x, size)

    out, record = images.detach().clone(), ["robust"] * len(images)
    if len(images):
        logits = predict(out)
        check_logits(logits, labels, stacklevel=3)
        for name, classes in (("apgd-dlr", 3), ("apgd-t", 4)):
            if logits.shape[1] < classes:
                runs[name] = partial(runs[name], objective="margin")
        left = torch.arange(len(images), device=images.device)
        for name in ("clean", *attacks) if early_stop else attacks:
            points = out[left]
            if name != "clean":
                with warnings.catch_warnings():  # once is enough
                    warnings.filterwarnings("ignore", PROBABILITIES)
                    points = runs[name](model, images[left], labels[left], **common)
                logits = predict(points)
            fooled = misled(logits, labels[left])
            taken = fooled | (name in attacks[:1])  # a later failure does not take the place of the first one's
            out[left[taken]] = points[taken]
            for i in left[fooled].tolist():
                record[i] = name
            left = left[~fooled]
            if not len(left):
                break
    return (out, record) if return_record else out

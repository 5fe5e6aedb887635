"""What the attack sees of a model: wrappers that any attack takes in the model's place."""

import math

import torch
from torch import Tensor, nn

from isce.attacks.common import check_numbers


def check_decisions(outputs: Tensor, raw: Tensor) -> None:
    """ValueError unless raw logits (n, K) decide as the outputs (n, K) of the same images do, but for ties: an attack that looks
    at anything else finds little, and would make the model look robust."""
    if raw.shape != outputs.shape:
        raise ValueError(
            f"raw_logits must be scores of the same classes, {tuple(outputs.shape)}, got {tuple(raw.shape)}"
        )
    behind = outputs.amax(1) - outputs.gather(1, raw.argmax(1, keepdim=True))[:, 0]
    if others := int((behind > 1e-3 * (outputs.amax(1) - outputs.amin(1))).sum()):
        raise ValueError(
            f"raw_logits and the model disagree on {others} of {len(raw)} images: they must be its scores before a final normalisation (a random model must draw from torch's own generator)"
        )


class RawLogits(nn.Module):
    """The scores before the output's normalisation, `model.raw_logits(images)`: (N, ...) -> (N, K), the same decisions, other
    gradients (`isce.evaluate` and `isce.checks` look whether they are). TypeError where the model has no such method."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not callable(getattr(model, "raw_logits", None)):
            raise TypeError(f"{type(model).__name__} has no method raw_logits(images) -> (N, K)")
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model.raw_logits(images)  # type: ignore[operator]
        return logits


class Rescaled(nn.Module):
    """The logits times `scale`: (N, ...) -> (N, K), the same decisions; undoes a temperature that flattens or saturates the softmax.
    TypeError or ValueError where scale is no finite number > 0."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        check_numbers(scale=scale)
        self.model, self.scale = model, scale

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits * self.scale


class Expectation(nn.Module):
    """A randomised model's mean prediction, for expectation over transformations (Athalye et al. 2018).

    Returns log of the mean over `samples` forward passes of softmax(logits), (N, K): log-probabilities serve as logits,
    and their argmax is the decision that the randomised model takes on average. Attacks switch the model to eval mode, where
    nn.Dropout and the like draw nothing: make such noise unconditional (`F.dropout(x, p, training=True)`).
    The draws are torch's own: `torch.manual_seed` repeats them, an attack's `generator` does not. TypeError or ValueError where
    samples is no integer > 0.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        super().__init__()
        check_numbers(samples=samples)
        self.model, self.samples = model, int(samples)

    def forward(self, images: Tensor) -> Tensor:
        passes = [self.model(images).log_softmax(1) for _ in range(self.samples)]
        return torch.stack(passes).logsumexp(0) - math.log(self.samples)

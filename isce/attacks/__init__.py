"""Attacks on any nn.Module from images in [0, 1] to logits: one pure function per file.

    attack(model, images, labels, *, ...) -> adversarial images, same shape, in [0, 1]

images: (N, ...), float32 or float64 in [0, 1]. labels, and targets with `targeted=True` (without: a random wrong class for each
image): (N,), integers on the images' device. eps, step_size: on the pixels' [0, 1] scale (8/255, not 8). norm: "l2" or "linf", over
all pixels of an image together. generator: one key is drawn from it, and each image's random numbers depend on that key and its pixels
alone (equal images have equal draws: for another try `restarts`, or another generator); None: a fixed key, so that
repeated calls agree. batch_size: images at a time; None: as many as a CPU's caches or a GPU's memory hold.

The model's mode, parameters and gradients are left as they were. Images that are already misclassified are returned unchanged, in
targeted attacks too, unless `early_stop=False`. Up to rounding, the result depends neither on `batch_size` nor on the other images.

Raised by all: TypeError or ValueError on bad input; NoGradientError (a ValueError) where a gradient attack meets a model without one.
Warned of: outputs that are probabilities; images that became NaN, which are returned unchanged; a batch too large for the memory.
"""

from isce.attacks.apgd import apgd, apgd_targeted
from isce.attacks.autoattack import autoattack
from isce.attacks.deepfool import deepfool
from isce.attacks.fab import fab
from isce.attacks.fgsm import fgsm
from isce.attacks.objectives import OBJECTIVES
from isce.attacks.pgd import pgd, pgd_path
from isce.attacks.simba import simba
from isce.attacks.square import square
from isce.attacks.surfaces import Expectation, RawLogits, Rescaled

__all__ = [
    "OBJECTIVES", "Expectation", "RawLogits", "Rescaled", "apgd", "apgd_targeted", "autoattack", "deepfool", "fab",
    "fgsm", "pgd", "pgd_path", "simba", "square",
]  # fmt: skip

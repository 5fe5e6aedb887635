"""Attacks on any nn.Module from images in [0, 1] to logits: one pure function per file.

    attack(model, images, labels, *, ...) -> adversarial images, same shape, in [0, 1]

images: (N, ...), float32 or float64 in [0, 1]. labels, and targets with `targeted=True` (without: a random wrong class for each
image): (N,), integers on the images' device. norm: "l2" or "linf", of an image's pixels all together. generator: gives the key from
which each image has draws of its own (equal images have equal ones: for another try `restarts`, or another generator); None is
always the same key. batch_size: images at a time; None: as many as a CPU's caches or a GPU's memory hold.

The model's mode, parameters and gradients are left as they were; images that are already misclassified are returned as
they are, in targeted attacks too, but with `early_stop=False`; the answer depends neither on `batch_size` nor on the other
images, but for rounding.
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

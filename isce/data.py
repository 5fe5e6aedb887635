"""Data sets as checked tensors: `digits` (embedded in scikit-learn), MNIST and CIFAR-10 (through torchvision).

Images are uint8 (N, C, H, W) and labels int64 (N,), so that a whole set lies on a GPU (CIFAR-10: 154 MB) and batches and
augmentation are tensor functions. `to_float` gives pixels in [0, 1]. The decoded arrays are checked against SHA-256 sums.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isce.record import choose, data_dir, lock


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W), uint8 as the data sets here, or floats in [0, 1] of your own, and labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))

    def take(self, index: slice | Tensor) -> "Split":
        return Split(self.images[index], self.labels[index])

    def __len__(self) -> int:
        return self.images.shape[0]


class Data(NamedTuple):
    train: Split
    validation: Split
    test: Split


@dataclass(frozen=True)
class Info:
    label: str
    shape: tuple[int, int, int]  # C, H, W
    mean: tuple[float, ...]  # of the training images, per channel, pixels in [0, 1]
    std: tuple[float, ...]
    sizes: tuple[int, int, int]  # train, validation, test
    sha256: str  # of all decoded bytes: training images, labels, test images, labels
    augmented: bool  # in training: shifted and mirrored
    classes: tuple[str, ...] = tuple("0123456789")


DATASETS = {
    "digits": Info(
        "digits",
        (1, 8, 8),
        (0.305,),
        (0.376,),
        (1097, 200, 500),
        "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382",
        False,
    ),
    "mnist": Info(
        "MNIST",
        (1, 28, 28),
        (0.1307,),
        (0.3081,),
        (55_000, 5_000, 10_000),
        "1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b",
        False,
    ),
    "cifar10": Info(
        "CIFAR-10",
        (3, 32, 32),
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        (45_000, 5_000, 10_000),
        "9048fcbac9c08a64d57a7c5a5a66750a974ad4eab380914df129f7e223d823df",
        True,
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
}


FOLDERS = {"mnist": "MNIST", "cifar10": "cifar-10-batches-py"}  # torchvision's, in its root


def _decode(name: str, root: Path, download: bool) -> tuple[Split, Split | None]:
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()  # 1,797 images of 8 x 8, integers 0..16
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        return Split(torch.from_numpy(images), torch.from_numpy(digits.target.astype(np.int64))), None
    from torchvision.datasets import CIFAR10, MNIST

    kind = MNIST if name == "mnist" else CIFAR10
    try:
        sets = [kind(str(root), train=train) for train in (True, False)]
    except Exception:
        if not download:
            raise
        with lock(root / name):  # of several jobs one downloads
            sets = [kind(str(root), train=train, download=True) for train in (True, False)]
    if name == "mnist":
        pair = [Split(s.data.unsqueeze(1).contiguous(), s.targets.long()) for s in sets]
    else:
        pair = [Split(torch.from_numpy(s.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(s.targets)) for s in sets]
    return pair[0], pair[1]


def load(name: str, root: str | Path | None = None, download: bool = True) -> Data:
    """Load a data set as train, validation and test, each with `.images` uint8 (N, C, H, W) and `.labels` int64 (N,).

    Validation is held out of the training images by a fixed permutation: 5,000 of MNIST and CIFAR-10. The digits have no
    test set of their own: 1,097 / 200 / 500 by the same permutation.

    Args:
        name: digits, mnist or cifar10. root: torchvision's folder, `data/` by default.
        download: let torchvision fetch what is missing.

    Raises:
        ValueError: an unknown name, or data that differ from the published set.
        FileNotFoundError: the data are missing or damaged and were not to be, or could not be, downloaded.
    """
    info = DATASETS[choose("data set", name, DATASETS)]
    root = Path(root) if root is not None else data_dir()
    try:
        first, test = _decode(name, root, download)
    except Exception as error:  # torchvision raises RuntimeError, OSError, EOFError, pickle's and zlib's errors alike
        if name not in FOLDERS:
            raise
        raise FileNotFoundError(
            f"{name} could not be read from {root} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}): "
            + ("is there a network (HTTPS_PROXY is heeded)? If so, " if download else "call with download=True; or ")
            + f"remove {root / FOLDERS[name]}, which may be damaged, and run again; or put torchvision's files there, or name with "
            "ISCE_DATA the folder that has them"
        ) from error
    digest = hashlib.sha256()
    for split in (first, test):
        if split is not None:
            digest.update(split.images.numpy().tobytes())
            digest.update(split.labels.numpy().tobytes())
    if digest.hexdigest() != info.sha256:
        raise ValueError(
            f"{name} in {root} is not the published data (SHA-256 {digest.hexdigest()}): remove it and load again"
        )
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(first)))  # frozen by NumPy, unlike default_rng
    if test is None:
        n_train = sum(info.sizes[:2])
        first, test = first.take(order[:n_train]), first.take(order[n_train:])
        order = torch.arange(len(first))
    held_out = info.sizes[1]
    return Data(first.take(order[held_out:]), first.take(order[:held_out]), test)


@lru_cache(maxsize=2)
def _kept(name: str, root: Path) -> Data:
    return load(name, root)


def kept(name: str) -> Data:
    """`load`, once in a process: to decode and check CIFAR-10 takes seconds, and an attack on a GPU may take less. For readers
    that leave the tensors as they are; everyone is given the same."""
    return _kept(name, data_dir())


def check_n(n: int | None, most: int, what: str = "images") -> int:
    """n, or `most` if None. ValueError: n is no whole number in 1..most."""
    if n is None:
        return most
    if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= most:
        raise ValueError(f"n must be a whole number from 1 to {most} {what}, got {n!r}")
    return int(n)


def subset(split: Split, n: int | None) -> Split:
    """The first n images of a fixed permutation of the split, all of them if None: nested, and not the easier first half of
    MNIST's test set."""
    n = check_n(n, len(split))
    return split.take(torch.from_numpy(np.random.RandomState(1).permutation(len(split))[:n].copy()))


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) to float32 in [0, 1]. TypeError for others, whose pixels may not be 0 to 255."""
    if images.dtype != torch.uint8:
        raise TypeError(f"want uint8 images, 0 to 255, got {images.dtype}")
    return images.float() / 255


def augment(images: Tensor, generator: torch.Generator, shift: int = 4) -> Tensor:
    """Random shifts by up to `shift` pixels (zeros move in) and mirror images, each image its own. (N, C, H, W) uint8.

    A whole training set at once, in pieces: on a GPU a few launches for each epoch instead of a dozen for each step.
    """
    return torch.cat([_augment(piece, generator, shift) for piece in images.split(4096)])


def _augment(images: Tensor, generator: torch.Generator, shift: int) -> Tensor:
    n, c, h, w = images.shape
    device = images.device
    mirrored = torch.rand(n, generator=generator) < 0.5
    images = torch.where(mirrored.to(device).view(-1, 1, 1, 1), images.flip(3), images)
    padded = F.pad(images, (shift,) * 4)
    top, left = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=generator).to(device)
    rows = (top + torch.arange(h, device=device)).view(n, 1, h, 1).expand(n, c, h, w + 2 * shift)
    columns = (left + torch.arange(w, device=device)).view(n, 1, 1, w).expand(n, c, h, w)
    return padded.gather(2, rows).gather(3, columns)

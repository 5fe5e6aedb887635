"""What Figures 1 and 4 are about, measured: where features lie, how far classes are apart, how a perturbation moves them."""

from typing import Any

import numpy as np
import torch
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestCentroid, NearestNeighbors
from torch import Tensor

from isce.attacks.common import held
from isce.models import Classifier
from isce.train import Spec, write_measures


@torch.no_grad()
def features(model: Classifier, images: Tensor, batch_size: int = 500) -> Tensor:
    """Images (N, C, H, W) in [0, 1] -> features (N, d) of a model in eval mode, on the CPU."""
    return torch.cat([model.features(x).cpu() for x in images.split(batch_size)])


@torch.no_grad()
def decision_plane(model: Classifier, points: Tensor, size: int = 400) -> dict[str, Any]:
    """The class that the model's head decides for over a square around 2-D points (N, 2): `decision`, `extent`."""
    low, high = points.amin(0), points.amax(0)
    middle, half = (low + high) / 2, 0.53 * float((high - low).max())
    x, y = (torch.linspace(float(c) - half, float(c) + half, size) for c in middle)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2).to(model.mean.device)
    decision = model.head(grid).argmax(1).view(size, size).cpu().numpy()
    return {"decision": decision, "extent": (float(x[0]), float(x[-1]), float(y[0]), float(y[-1]))}


def separation(z: Tensor, y: Tensor, z_train: Tensor, y_train: Tensor) -> dict[str, float]:
    """How separate the classes' clusters are; none of it changes when all features are scaled alike.

    z (N, d) with labels y (N,): the mean silhouette in Euclidean and in cosine distance (-1 confused, 0 touching, 1 apart;
    Rousseeuw 1987), and the accuracy in % of the nearest class mean of the training features z_train, y_train.
    """
    nearest = NearestCentroid().fit(z_train.numpy(), y_train.numpy())
    silhouettes = {m: float(silhouette_score(z.numpy(), y.numpy(), metric=m)) for m in ("euclidean", "cosine")}
    return {**silhouettes, "nearest_mean": 100 * float(nearest.score(z.numpy(), y.numpy()))}


def write_separation(spec: Spec, apart: dict[str, float], n: int, device: torch.device) -> None:
    """Keep `separation`'s numbers, over n test images, as separation.json in the run of `spec`."""
    write_measures(spec, "separation", dict(apart), n, device)


def outside(z_train: Tensor, z_clean: Tensor, z: Tensor, level: float = 0.95) -> float:
    """Share in % of features z that lie off the clean data: farther from their nearest training feature than the `level`
    quantile of other clean features z_clean. Shapes (., d)."""
    tree = NearestNeighbors(n_neighbors=1).fit(z_train.numpy())
    clean, moved = (tree.kneighbors(points.numpy())[0] for points in (z_clean, z))
    return 100 * float(np.mean(moved > np.quantile(clean, level)))


def stretch(model: Classifier, images: Tensor) -> Tensor:
    """How a tiny ball of perturbations looks in 2-D features: the axes (N, 2) of its image, an ellipse, long one first.

    They are the singular values of the features' Jacobian; (1, 1) times a number would be an isotropic expansion.
    """
    with held(model):
        x = images.detach().requires_grad_()
        z = model.features(x)
        rows = [torch.autograd.grad(z[:, k].sum(), x, retain_graph=True)[0].flatten(1) for k in range(z.shape[1])]
    return torch.linalg.svdvals(torch.stack(rows, 1)).detach().cpu()

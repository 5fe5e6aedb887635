"""What Figures 1, 2 and 4 are about, measured: where features lie, how far classes are apart, what moves them and where to."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestCentroid, NearestNeighbors
from torch import Tensor

from isce import data, record, train
from isce.attacks import RawLogits, Rescaled
from isce.attacks.common import held
from isce.attacks.norms import norm_of, random_in_ball
from isce.attacks.random import draw_key, drawing
from isce.evaluate import predict
from isce.evaluations import Evaluation
from isce.losses import normalize_logits
from isce.methods import LinearHead
from isce.models import Classifier
from isce.train import Spec, fit

DRAWN = 1000  # points that Figure 4's record of a network holds, at most


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


def inference_region(
    model: Classifier, test: data.Split, known: data.Split, eps: float, steps: int = 50, seed: int = 0
) -> tuple[dict[str, Any], dict[str, float]]:
    """Figure 1 of a model with two features: where test images lie, and what L2 PGD of all its steps makes of them.

    The attack climbs the cross-entropy of the raw logits, divided by the median of their lead: neither the normalisation nor a
    saturated softmax misleads it. `known`: training images, which say where clean features are. uint8 images, on the model's device.

    Returns:
        A panel for `plots.inference_region`, but for its title, and with `labels`; a class is absent where neither an image, clean or
        attacked, nor a cell of the plane goes to it. And the measures: the % under attack, `outside` the
        clean data, and moved towards the middle of all features; one-sidedness, 1 where the images of a class move one way; the
        ratio of the axes of `stretch`, a median; how many times farther than a random perturbation of the same norm one moves.
    """
    images, labels = data.to_float(test.images), test.labels.cpu()
    with torch.no_grad():
        raw = model.raw_logits(images)
    first, second = raw.topk(2, dim=1).values.T
    surface = Rescaled(RawLogits(model), 1 / float((first - second).median()))
    key = draw_key(torch.Generator().manual_seed(seed))
    attacked = train.adversarial_images(surface, images, test.labels, eps, steps, key)
    noise = random_in_ball(images, torch.arange(len(images), device=images.device), 0, eps) - images
    noise *= (norm_of(attacked - images) / norm_of(noise)).view(-1, 1, 1, 1)
    z, z_adv, z_noise = (features(model, x) for x in (images, attacked, (images + noise).clamp(0, 1)))
    z_known = features(model, data.to_float(known.images))
    decided = torch.stack([predict(model, x).cpu() for x in (images, attacked)])
    plane = decision_plane(model, torch.cat([z, z_adv]))
    absent = {*range(raw.shape[1])} - {*decided.unique().tolist()} - {*np.unique(plane["decision"])}
    panel = {"clean": z, "adversarial": z_adv, "wrong": decided != labels, "labels": labels, "absent": sorted(absent)}

    shift, axes = z_adv - z, stretch(model, images)
    inwards = ((z_known.mean(0) - z) * shift).sum(1) > 0
    sided = torch.stack([F.normalize(shift[labels == c]).mean(0).norm() for c in labels.unique()])
    return panel | plane, {
        "under attack, %": 100 * float((decided[1] == labels).double().mean()),
        "off the clean data, %": outside(z_known, z, z_adv),
        "moved inwards, %": 100 * float(inwards.double().mean()),
        "one-sidedness": float(sided.mean()),
        "axes of the ellipse, ratio": float((axes[:, 0] / axes[:, 1]).median()),
        "shift, adversarial / random": float((shift.norm(dim=1) / (z_noise - z).norm(dim=1)).median()),
    }


def separation(z: Tensor, y: Tensor, z_train: Tensor, y_train: Tensor) -> dict[str, float]:
    """How separate the classes' clusters are; none of it changes when all features are scaled alike.

    z (N, d) with labels y (N,): the mean silhouette in Euclidean and in cosine distance (-1 confused, 0 touching, 1 apart;
    Rousseeuw 1987), and the accuracy in % of the nearest class mean of the training features z_train, y_train.
    """
    nearest = NearestCentroid().fit(z_train.numpy(), y_train.numpy())
    silhouettes = {m: float(silhouette_score(z.numpy(), y.numpy(), metric=m)) for m in ("euclidean", "cosine")}
    return {**silhouettes, "nearest_mean": 100 * float(nearest.score(z.numpy(), y.numpy()))}


def find_clouds(search: Evaluation) -> dict[str, Any] | None:
    """What `load_or_embed` returns, if runs/ or results/ have it, of as many images and of weights that it names."""
    done = train.measures(search.spec, "separation")
    return done if done and done["n"] == search.n and "points" in done and done.get("weights_sha256") else None


def load_or_embed(search: Evaluation, device: str = "auto") -> dict[str, Any]:
    """Where a network with an embedding puts the images that `search` is about: the record, found or made.

    Returns:
        `separation`'s numbers, over the n test images; `points` and `labels`, the first `DRAWN` of them (`cloud_of`); and,
        but in the oldest records: `worst_class`, the accuracy in % on the class that fares worst, `median_norm` of the
        embedded points.
    """
    if (done := find_clouds(search)) is not None:
        return done
    with record.lock(search.spec.folder / "separation.json"):
        return find_clouds(search) or _embed(search, device)


def _embed(search: Evaluation, device: str) -> dict[str, Any]:
    spec, place = search.spec, record.pick_device(device)
    model, sets = train.load_or_train(spec, device), data.kept(spec.dataset)
    test, known = data.subset(sets.test, search.n), data.subset(sets.train, min(len(sets.train), 5000))
    with drawing(spec.seed, place):  # Random pads each image by chance
        z, z_train = (features(model, data.to_float(split.images).to(place)) for split in (test, known))
        right = predict(model, data.to_float(test.images).to(place)).cpu() == test.labels
    measured: dict[str, Any] = {
        **separation(z, test.labels, z_train, known.labels),
        "worst_class": min(100 * float(right[test.labels == c].double().mean()) for c in test.labels.unique()),
        "median_norm": float(z.norm(dim=1).median()),
        "points": z[:DRAWN].numpy().astype("<f4").tobytes().hex(),
        "labels": "".join(map(str, test.labels[:DRAWN].tolist())),
    }
    train.write_measures(spec, "separation", measured, len(test), place)
    return {"n": len(test), **measured}


def cloud_of(done: dict[str, Any], drawn: int = DRAWN) -> dict[str, np.ndarray]:
    """The first points (N, 3) of a record of `load_or_embed`, and their labels (N,)."""
    points = np.frombuffer(bytes.fromhex(done["points"]), dtype="<f4").reshape(-1, 3)
    return {"points": points[:drawn], "labels": np.array(list(done["labels"]), dtype=int)[:drawn]}


def outside(z_train: Tensor, z_clean: Tensor, z: Tensor) -> float:
    """Share in % of features z that lie off the clean data: farther from their nearest training feature than 95 % of
    other clean features z_clean. Shapes (., d)."""
    tree = NearestNeighbors(n_neighbors=1).fit(z_train.numpy())
    clean, moved = (tree.kneighbors(points.numpy())[0] for points in (z_clean, z))
    return 100 * float(np.mean(moved > np.quantile(clean, 0.95)))


def stretch(model: Classifier, images: Tensor) -> Tensor:
    """How a tiny ball of perturbations looks in 2-D features: the axes (N, 2) of its image, an ellipse, long one first.

    They are the singular values of the features' Jacobian; (1, 1) times a number would be an isotropic expansion.
    """
    return torch.linalg.svdvals(_jacobian(model, model.features, images)[1]).cpu()


def radial_share(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    r"""How much of their way to the nearest boundary the raw logits z go along themselves: $|\cos(z, J d)|$. -> (N,) in [0, 1].

    J is their Jacobian in the pixels; the images go straight down the lead over the runner-up k, $d = -\nabla(z_y - z_k)$. Near 1
    the logits do little but shrink, $z / \lVert z \rVert$ stands still to first order, and a search that goes by its linear
    approximation takes the boundary to be far away. Images (N, ...) with labels (N,).
    """
    shares = []
    for x, y in zip(images.split(256), labels.split(256), strict=True):
        z, jacobian = _jacobian(model, model.raw_logits, x)
        rows, runner_up = torch.arange(len(z)), z.scatter(1, y[:, None], -torch.inf).argmax(1)
        down = jacobian[rows, runner_up] - jacobian[rows, y]  # (N, D)
        shares.append(F.cosine_similarity(z, (jacobian @ down.unsqueeze(2)).squeeze(2)).abs().cpu())
    return torch.cat(shares)


def _jacobian(model: Classifier, of: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """What a model makes of images, (N, d), and its derivative in the pixels, (N, d, D)."""
    with held(model):
        x = images.detach().requires_grad_()
        z = of(x)
        rows = [torch.autograd.grad(z[:, k].sum(), x, retain_graph=True)[0].flatten(1) for k in range(z.shape[1])]
    return z.detach(), torch.stack(rows, 1)


def downhill(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The direction, of length 1, down a loss (N, d) -> (N,) at logits or features x (N, d)."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x).sum(), x)
    return -normalize_logits(gradient)


def pull(loss: Callable[[Tensor], Tensor], coordinate: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
    """Where samples x (N, d) lie along a coordinate, and which way a loss pulls them; both are (N, d) -> (N,).

    Returns:
        (N,) each: `at`, the coordinate; `rate`, its derivative in the direction down the loss; `radial`, the share of that
        direction that lies along x: 0 where the loss does not depend on the length of x.
    """
    x = x.detach().requires_grad_()
    at, down = coordinate(x), downhill(loss, x)
    (along,) = torch.autograd.grad(at.sum(), x)
    radial = (normalize_logits(x.detach()) * down).sum(1).abs()
    return {"at": at.detach(), "rate": (along * down).sum(1), "radial": radial}


def sides(descent: Tensor, y: Tensor) -> tuple[float, float]:
    """From how many sides each class is pulled, by directions (N, d) of length 1 and labels (N,); means over classes.

    One-sidedness: the length of the mean direction, 1 if all are pulled the same way. Then the share of the best line, the
    largest eigenvalue of the mean u u^T: 1 if all are pulled along it, either way, 1/d if from all directions alike.
    """
    groups = [descent[y == c] for c in y.unique()]
    lines = [torch.linalg.eigvalsh(u.T @ u / len(u))[-1] for u in groups]
    return float(torch.stack([u.mean(0).norm() for u in groups]).mean()), float(torch.stack(lines).mean())


def norms_in_training(spec: Spec, device: torch.device, factor: float = 1.0, progress: bool = True) -> Tensor:
    """Mean norm of the raw logits of each epoch's batches (epochs,), in a training of `spec` of which nothing is kept.

    `factor` multiplies the output layer, which must be linear, before the first step. ValueError where it is not.
    """
    model = spec.build().to(device)
    if not isinstance(model.head, LinearHead):
        raise ValueError(f"the output layer of {spec.method} is not linear")
    norms: list[Tensor] = []
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(factor)
    model.head.linear.register_forward_hook(lambda _, __, f: norms.append(f.detach().norm(dim=1).mean()))
    history = fit(model, data.kept(spec.dataset).train.to(device), spec, progress=progress)
    return torch.stack(norms).view(len(history["loss"]), -1).mean(1).cpu()

"""Models whose answer is known, and small ones trained on scikit-learn's digits."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce import attacks


class Linear(nn.Module):
    """z = W x + b on flattened images: distances to its boundaries have closed forms."""

    def __init__(self, shape: tuple[int, ...], classes: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        d = int(torch.tensor(shape).prod())
        self.weight = nn.Parameter(
            (torch.randn(classes, d, generator=generator, dtype=torch.float64) / d**0.5).to(dtype)
        )
        self.bias = nn.Parameter((0.05 * torch.randn(classes, generator=generator, dtype=torch.float64)).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight, self.bias)

    def distances(self, x: Tensor, norm: str) -> Tensor:
        """(N, K) distance of each image to its boundary with each class; inf for its own."""
        z = self(x)
        y = z.argmax(1)
        w = self.weight[None] - self.weight[y][:, None]
        dual = w.norm(dim=2) if norm == "l2" else w.abs().sum(2)
        f = (z.gather(1, y[:, None]) - z).scatter(1, y[:, None], float("inf"))
        return f / dual.clamp_min(1e-12)


def centred(n: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Images far from the box's walls."""
    return 0.4 + 0.2 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


class DigitNet(nn.Module):
    """A small CNN on 1x8x8 with the output layers of the methods compared."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.head = head
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 32), nn.ReLU() if head != "mmc" else nn.Identity(),
        )  # fmt: skip
        self.linear = nn.Linear(32, 10)
        centres = F.normalize(torch.eye(10, 32) - 0.1 * (torch.arange(32) < 10), dim=1)
        self.register_buffer("centres", 10 * centres)

    def raw_logits(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        if self.head == "mmc":
            return -(h[:, None] - self.centres).square().sum(2)
        if self.head == "arcface":
            return 16 * F.linear(F.normalize(h, dim=1), F.normalize(self.linear.weight, dim=1))
        z = self.linear(h)
        return F.normalize(z, dim=1) if self.head == "isce" else z


def _train(head: str, x: Tensor, y: Tensor) -> DigitNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DigitNet(head)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(8 if head == "at" else 12):
            for i in torch.randperm(len(x)).split(64):
                xb, yb = x[i], y[i]
                if head == "at":
                    xb = attacks.pgd(model, xb, yb, eps=0.5, steps=3)
                z = model(xb)
                if head == "arcface":
                    z = z - 16 * 0.3 * F.one_hot(yb, 10)
                loss = F.cross_entropy(z, yb, label_smoothing=0.1 if head == "smoothing" else 0.0)
                if head == "mmc":
                    loss = -z.gather(1, yb[:, None]).mean() / 10
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model.eval()


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny networks lose more to threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (1297, 1, 8, 8) in [0, 1] and labels, test images and labels (500)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.from_numpy(data.images).float()[:, None] / 16
    y = torch.from_numpy(data.target).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return x[:1297], y[:1297], x[1297:], y[1297:]


@pytest.fixture(scope="session")
def trained(digits: tuple[Tensor, Tensor, Tensor, Tensor]) -> Callable[[str], DigitNet]:
    """trained(head) -> a DigitNet in eval mode; each is trained once per session, in a second or two."""
    models: dict[str, DigitNet] = {}

    def get(head: str) -> DigitNet:
        if head not in models:
            models[head] = _train(head, digits[0], digits[1])
        return models[head]

    return get

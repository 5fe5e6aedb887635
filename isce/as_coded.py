r"""Arm A: the method as the authors' public CIFAR-10 script codes it, which differs from the paper's text. All in one place.

* The entry of the *predicted* class (argmax, not the label; in training too) becomes clip(s (f_i + m), -1, 1).
* Batch norm always uses the current batch's statistics, in test and attack too: an image's logits depend on its batch.
* Images are scaled to [-1, 1], minus the per-pixel training mean, then standardised per image inside the model.
* A pre-activation ResNet-32 with a dense layer of 64 before the output; momentum SGD, 20,000 steps of 128 images.
* The attack called PGD starts at the image, has neither random start nor projection nor ball, and ascends the
  cross-entropy against the model's own clean prediction.
* The library that the script builds on (gongzhitaao/tensorflow-adversarial) has a DeepFool whose steps are too long by a
  factor, the gradient's norm: far too long where gradients are large, far too short where logits are normalised. So it stood at
  commit 55f565de; a later one, 17d6fee, divides by the squared norm. Which one the authors had is not known.

The same network, recipe and statistics with plain softmax cross-entropy (method sce) are our control, not the script's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.attacks.common import check_images, check_numbers, check_range, differentiable, held
from isce.attacks.norms import norm_of, per_image, steepest
from isce.data import DATASETS, to_float
from isce.losses import normalize_logits, softmax_cross_entropy
from isce.methods import LinearHead
from isce.models import Classifier, seeded

EPS = (0.01, 0.04)  # of its attacks: a step on the [-1, 1] scale, half of it in our pixels; or an overshoot
BATCH = 256  # images at test time, whose statistics its batch norm takes: in decisions and in attacks alike


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, track_running_stats=False)


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv twice (He et al. 2016b); the shortcut is average-pooled and zero-padded where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = batch_norm(inputs), batch_norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        if self.extra:
            x = F.pad(F.avg_pool2d(x, self.stride), (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return out + x


class Backbone(nn.Module):
    """Images in (x - 0.5) / 0.5 = [-1, 1], (N, C, H, W) -> features (N, 64)."""

    dim = 64
    pixel_mean: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(shape))
        self.conv = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        blocks, inputs = [], 16
        for outputs in (16, 32, 64):
            for k in range(5):
                blocks.append(PreActivationBlock(inputs, outputs, 2 if outputs > 16 and k == 0 else 1))
                inputs = outputs
        self.blocks, self.bn, self.dense = nn.Sequential(*blocks), batch_norm(64), nn.Linear(64, self.dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.pixel_mean
        deviation = x.flatten(1).std(1, correction=0).clamp_min(x[0].numel() ** -0.5)  # TensorFlow's per-image rule
        x = (x - x.mean((1, 2, 3), keepdim=True)) / deviation.view(-1, 1, 1, 1)
        return self.dense(F.relu(self.bn(self.blocks(self.conv(x)))).mean((2, 3)))


class Head(LinearHead):
    """Normalised logits whose largest entry t becomes clip(s (t + m), -1, 1), in training and at inference alike."""

    def __init__(self, dim: int, classes: int, s: float, m: float) -> None:
        super().__init__(dim, classes)
        self.s, self.m = s, m

    def forward(self, z: Tensor) -> Tensor:
        f = normalize_logits(self.raw_logits(z))
        top, index = f.max(1, keepdim=True)
        return f.scatter(1, index, (self.s * (top + self.m)).clamp(-1, 1))

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        return softmax_cross_entropy(self(z), y)


def build(dataset: str, method: str, seed: int = 0, **options: float) -> Classifier:
    """Arm A's classifier (isce with s and m, or sce), weights drawn from `seed`; `set_pixel_mean` belongs before training."""
    shape = DATASETS[dataset].shape
    with seeded(seed):
        backbone, head = Backbone(shape), LinearHead(64, 10) if method == "sce" else Head(64, 10, **options)
        return Classifier(backbone, head, (0.5,) * shape[0], (0.5,) * shape[0])


def set_pixel_mean(model: Classifier, images: Tensor) -> None:
    """The per-pixel mean of the training images, uint8 (N, C, H, W), on the [-1, 1] scale."""
    model.backbone.pixel_mean.copy_(to_float(images).mean(0) * 2 - 1)  # type: ignore[operator]


def optimizer(model: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Momentum SGD without weight decay; lr 0.1, 0.01 from half, 0.001 from three quarters of the steps."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return sgd, torch.optim.lr_scheduler.MultiStepLR(sgd, [steps // 2, steps * 3 // 4])


def attack(
    model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, steps: int, batch_size: int = BATCH
) -> Tensor:
    r"""The script's "PGD": $x \leftarrow \mathrm{clip}(x + \epsilon\,\mathrm{sign}\,\nabla_x \mathrm{CE}(f(x), \hat y))$.

    $\hat y$ is the clean prediction; `labels` serve the checks alone. eps on the [-1, 1] scale, as in the script. With eps
    0.04 and 50 steps every pixel value is within reach, so that accuracy above chance speaks against the attack.
    images (N, C, H, W) in [0, 1] -> the same shape. Batches of 256, as there: batch norm makes them matter.
    """
    check_numbers(eps=eps, steps=steps, batch_size=batch_size)
    check_images(model, images, labels)
    done = []
    with held(model):
        for x in images.detach().clone().split(batch_size):
            clean = model(x)
            check_range("labels", labels, clean.shape[1])
            own = clean.argmax(1)
            for _ in range(steps):
                x = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), own, reduction="sum"), x)
                x = (x.detach() + eps / 2 * gradient.sign()).clamp(0, 1)
            done.append(x)
    return torch.cat(done)


def deepfool(
    model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, steps: int, batch_size: int = BATCH
) -> Tensor:
    r"""The script's library's DeepFool: $z \leftarrow z + \frac{|f_l|}{\|w_l\|} w_l$ at $x = \mathrm{clip}(x_0 + (1 + \epsilon) z)$.

    $f_k = z_k - z_{\hat y}$ of the logits, $w_k = \nabla_x f_k$, $l = argmin_k |f_k| / \|w_k\|$, $\hat y$ the clean prediction.
    DeepFool divides by $\|w_l\|^2$; so this step is $|f_l|$ long, whatever the gradient. Where f is linear,
    $f \leftarrow f\,(1 - (1 + \epsilon) \|w\|)$: one step crosses the boundary, too far, if $\|w\|$ is large, and no number of
    steps crosses it if $\|w\| < 1 / (1 + \epsilon)$. eps is an overshoot: there is no ball. `steps` is the DF10 or DF50.

    Lengths are of the [-1, 1] scale: half of them in our pixels. images (N, C, H, W) in [0, 1] -> the same shape; `labels`
    serve the checks alone. An image rests once its prediction has changed; unlike there it stays in its batch (batch norm).
    """
    check_numbers(eps=eps, steps=steps, batch_size=batch_size)
    check_images(model, images, labels)
    done = []
    with held(model):
        for clean in images.detach().clone().split(batch_size):
            outputs, z = model(clean), torch.zeros_like(clean)
            check_range("labels", labels, outputs.shape[1])
            own = outputs.argmax(1)
            for _ in range(steps):
                x, logits = differentiable(model, (clean + (1 + eps) * z).clamp(0, 1))
                unchanged = logits.argmax(1) == own
                if not unchanged.any():
                    break
                f = logits - logits.gather(1, own[:, None])
                nearest, length, w = torch.full_like(f[:, 0], torch.inf), torch.zeros_like(f[:, 0]), torch.zeros_like(x)
                for k in range(f.shape[1]):
                    (w_k,) = torch.autograd.grad(f[:, k].sum(), x, retain_graph=True)
                    score = (f[:, k].abs() / norm_of(w_k)).detach()  # infinite or NaN where nothing moves f_k
                    closer = (score < nearest) & (own != k) & unchanged
                    nearest = torch.where(closer, score, nearest)
                    length = torch.where(closer, f[:, k].abs() / 2, length)
                    w = torch.where(per_image(closer, w), w_k, w)
                z = z + steepest(w, length=length.detach())
            done.append((clean + (1 + eps) * z).clamp(0, 1))
    return torch.cat(done)

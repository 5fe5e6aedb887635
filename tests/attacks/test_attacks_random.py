"""Randomness by hashing: uniform, independent, and a property of the image alone."""

import pytest
import torch

from isce.attacks import random


@pytest.fixture(scope="module")
def seeds():
    return random.image_seeds(torch.rand(200, 5, generator=torch.Generator().manual_seed(0)), key=1)


def test_mix_is_splitmix64():
    """The published generator, seed 1234567, gives these first numbers."""
    state = torch.tensor([random._signed((1234567 + random.GOLDEN * k) % 2**64) for k in (1, 2, 3)])
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [v % 2**64 for v in random.mix(state).tolist()] == published


def test_uniform_is_uniform_and_independent(seeds):
    u = random.uniform(seeds, 3, 500)
    assert u.dtype == torch.float32
    assert u.min() >= 0 and u.max() < 1  # noqa: PT018
    counts = torch.histc(u, 64, 0, 1)
    chi2 = ((counts - u.numel() / 64) ** 2 / (u.numel() / 64)).sum()
    assert 25 < chi2 < 115  # 63 degrees of freedom: 1e-5 either side
    v, bound = random.uniform(seeds, 4, 500), 5 / u.numel() ** 0.5
    for a, b in ((u, v), (u[:, 1:], u[:, :-1]), (u[1:], u[:-1])):  # counters, neighbours, images
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < bound


def test_normal_signs_permutations(seeds):
    z = random.normal(seeds, 0, 500)
    assert z.mean().abs() < 0.02
    assert abs(z.std() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.15
    s = random.signs(seeds, 0, 500)
    assert set(s.unique().tolist()) == {-1.0, 1.0}
    assert s.mean().abs() < 0.02
    p = random.permutations(seeds, 0, 30)
    assert (p.sort(1).values == torch.arange(30)).all()
    assert (p[:, 0].bincount(minlength=30) > 0).all()


def test_seeds_belong_to_the_image():
    x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    seeds = random.image_seeds(x, key=5)
    assert torch.equal(random.image_seeds(x[[6, 1]], key=5), seeds[[6, 1]])
    assert len(set(seeds.tolist())) == 8
    assert not torch.equal(random.image_seeds(x, key=6), seeds)
    eight_bit = torch.arange(256).view(1, 256)  # the last bit of k / 255 may differ between devices
    assert torch.equal(random.image_seeds(eight_bit / 255, 0), random.image_seeds(eight_bit.double() * (1 / 255), 0))
    assert random.draw_key(None) == random.draw_key(torch.Generator().manual_seed(0))


def test_random_start_is_uniform_in_the_ball(seeds):
    from isce.attacks.norms import norm_of, random_in_ball

    x = torch.full((200, 3), 0.5)
    r = norm_of(random_in_ball(x, seeds, 0, 0.2) - x) / 0.2
    assert r.max() <= 1 + 1e-6
    assert abs((r**3).mean() - 0.5) < 0.07  # the cube of the radius is uniform
    delta = random_in_ball(x, seeds, 0, 0.2, "linf") - x
    assert delta.abs().max() <= 0.2 + 1e-6
    assert abs(delta.std() - 0.4 / 12**0.5) < 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_equal_on_every_device(seeds):
    assert torch.equal(random.uniform(seeds.cuda(), 1, 9).cpu(), random.uniform(seeds, 1, 9))
    assert torch.equal(random.permutations(seeds.cuda(), 1, 99).cpu(), random.permutations(seeds, 1, 99))

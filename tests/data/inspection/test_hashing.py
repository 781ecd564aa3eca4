"""Perceptual hashes: kept by a new size, a new JPEG and light, other for other pictures; near pairs are all found."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from hfvla.data.inspection.hashing import NEAR_BITS, hash_picture, near_pairs

from .sets import encoded, scene


def distance(one, other) -> int:
    return max(bin(a ^ b).count("1") for a, b in zip(one, other, strict=True))


def through_jpeg(picture, quality):
    import io

    return Image.open(io.BytesIO(encoded(picture, "JPEG", quality=quality)))


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture.resize((48, 32), Image.Resampling.BICUBIC),
        lambda picture: picture.resize((331, 220), Image.Resampling.BICUBIC),
        lambda picture: through_jpeg(picture, 40),
        lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
    ],
)
def test_a_changed_copy_looks_alike(change):
    far = [distance(hash_picture(scene(seed)), hash_picture(change(scene(seed)))) for seed in range(20)]
    assert sum(bits <= NEAR_BITS for bits in far) >= 19, far


def test_other_pictures_do_not():
    hashes = [hash_picture(scene(seed)) for seed in range(60)]
    apart = [distance(hashes[a], hashes[b]) for a in range(60) for b in range(a)]
    assert min(apart) > NEAR_BITS


def test_near_pairs_are_those_of_all_comparisons():
    draw = np.random.default_rng(0)

    def flipped(value, bits):
        for place in draw.choice(64, bits, replace=False):
            value ^= 1 << int(place)
        return value

    ones = [(int(draw.integers(0, 2**63)), int(draw.integers(0, 2**63))) for _ in range(40)]
    others = [(flipped(ones[n % 40][0], n % 9), flipped(ones[n % 40][1], n % 5)) for n in range(120)]
    for bits in (0, 3, 7):
        expected = {(a, b) for a, x in enumerate(ones) for b, y in enumerate(others) if distance(x, y) <= bits}
        found = {(a, b): most for a, b, most in near_pairs(ones, others, bits)}
        assert set(found) == expected and expected
        assert all(found[a, b] == distance(ones[a], others[b]) for a, b in found)


def test_literal_hash_of_a_ramp():
    ramp = Image.fromarray(np.tile(np.arange(90, dtype=np.uint8) * 2, (80, 1)))
    # Every grey value is brighter than the one on its left, none than the one above.
    assert hash_picture(ramp.convert("RGB")) == (2**64 - 1, 0)


def test_more_bits_than_the_bands_promise_are_refused():
    with pytest.raises(ValueError, match="bits 8"):
        list(near_pairs([(0, 0)], [(0, 0)], 8))
    assert list(near_pairs([(0, 0)], [])) == []

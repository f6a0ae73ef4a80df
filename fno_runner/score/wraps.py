"""Where the circle of phases is cut: an angle is taken once nothing that matters lies at ±π.

A phase is known up to a constant and a ramp, which diffraction cannot see. Both are arbitrary, and
an object that fits into a circle may still lie across its cut: then its angle jumps by 2π along a
line that is no part of it. What an object is multiplied by here turns it off the cut.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Complex128

CUTS = 128
"""Places of the cut that are weighed, evenly around the circle."""
ALIKE = 0.5
"""A ramp between two objects counts where without it they agree by so much of what they can."""

Wave = Complex128[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]


def off_the_cut(wave: Wave, mask: Mask) -> Wave:
    """What a wave is multiplied by, of modulus 1 (H, W), so that its angle jumps least in the mask.

    A constant, and where a constant alone leaves jumps also the wave's mean ramp, if that leaves
    fewer. The result turns with the wave: times it, waves that differ by a constant are the same.
    """
    constant, jumps = _turn(wave, mask)
    if jumps == 0:
        return np.full(wave.shape, constant)
    ramp = _ramp_of(wave, mask).conj()
    of_rest, left = _turn(wave * ramp, mask)
    return ramp * of_rest if left < jumps else np.full(wave.shape, constant)


def ramp_between(product: Wave, mask: Mask) -> Wave | None:
    """The ramp by which two objects differ, as `_ramp_of`; None where they show none.

    product: of one and the other's complex conjugate.
    """
    ramp = _ramp_of(product, mask)
    with_it, without = (abs(np.sum(of[mask])) for of in (product, product * ramp.conj()))
    most = np.sum(np.abs(product[mask]))
    return ramp if without > max(with_it, ALIKE * most) else None


def _ramp_of(wave: Wave, mask: Mask) -> Wave:
    """exp(i(k·y + m·x)) with a wave's mean change of phase a row and a column, (H, W).

    The mean is that of neighbours' products, in which no phase wraps that changes by less than π a
    pixel; a strong neighbour counts more.
    """
    height, width = wave.shape
    down, right = mask[1:] & mask[:-1], mask[:, 1:] & mask[:, :-1]
    k = np.angle(np.sum((wave[1:] * wave[:-1].conj())[down]))
    m = np.angle(np.sum((wave[:, 1:] * wave[:, :-1].conj())[right]))
    along = np.exp(1j * k * np.arange(height)), np.exp(1j * m * np.arange(width))
    return np.asarray(along[0][:, None] * along[1])


def _turn(wave: Wave, mask: Mask) -> tuple[complex, int]:
    """The constant that brings the best cut to ±π, and how many neighbours it parts.

    Of equally good cuts the one farthest from the mean phase.
    """
    mean = np.angle(np.sum(wave[mask]))
    phase = np.angle(wave * np.exp(-1j * mean))
    pairs = [
        (phase[:-1], phase[1:], mask[:-1] & mask[1:]),
        (phase[:, :-1], phase[:, 1:], mask[:, :-1] & mask[:, 1:]),
    ]
    if not any((np.abs(second - first) > np.pi)[both].any() for first, second, both in pairs):
        return complex(np.exp(-1j * mean)), 0
    step, most = 2 * np.pi / CUTS, 2 * CUTS + 2
    passed = np.zeros(most, int)
    for first, second, both in pairs:
        # The short way from one to the other passes the cuts low + 1 … high; cut 0 is the mean's
        # opposite, and CUTS // 2 more keep all of them positive.
        start = first[both] + np.pi
        change = (second[both] - first[both] + np.pi) % (2 * np.pi) - np.pi
        low, high = np.floor(np.sort([start, start + change], axis=0) / step).astype(int)
        for end, sign in ((low, 1), (high, -1)):
            passed += sign * np.bincount(end + CUTS // 2 + 1, minlength=most)
    of_cut = (np.arange(most) - CUTS // 2) % CUTS
    parted = np.bincount(of_cut, weights=np.cumsum(passed), minlength=CUTS)
    away = np.minimum(np.arange(CUTS), CUTS - np.arange(CUTS))
    cut = min(range(CUTS), key=lambda place: (parted[place], away[place], place))
    return complex(np.exp(-1j * (mean + cut * step))), int(parted[cut])

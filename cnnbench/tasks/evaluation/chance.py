"""What chance leaves open about a share that was counted."""

import math

CERTAIN = 1.959963984540054  # deviations of a normal distribution that hold 95 % of it


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return between which shares the true one lies, 19 times out of 20; NaN where nothing was tried.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    if not total:
        return math.nan, math.nan
    share, z2 = hits / total, CERTAIN**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = CERTAIN / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def is_chance(one: float, images: int, other: float, others: int) -> bool:
    """Tell whether two shares, each of so many images, differ by no more than chance would have it 19 times of 20."""
    spread = math.sqrt(one * (1 - one) / images + other * (1 - other) / others)
    return abs(one - other) <= CERTAIN * spread

"""What chance does to a share or a mean over images: 95 % intervals, and a test."""

import math

from torch import Tensor

Z_95 = 1.959963984540054  # standard deviations: the quantile of a two-sided 95 % interval
ROUNDING = 1e-4  # what another machine, or another library, makes of the same arithmetic


def student(values: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values that are not negative; NaN for fewer than two.

    Source: Student 1908, The probable error of a mean.
    """
    from scipy.special import stdtrit

    if len(values) < 2:
        return math.nan, math.nan
    middle = float(values.mean())
    half = float(stdtrit(len(values) - 1, 0.975) * values.std()) / math.sqrt(len(values))
    return max(0.0, middle - half), middle + half


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a counted share; NaN where nothing was counted.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    if not total:
        return math.nan, math.nan
    share, z2 = correct / total, Z_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def is_chance(one: float, images: int, other: float, others: int) -> bool:
    """Return whether two shares of that many images differ insignificantly, at the 5 % level: Fisher's exact test.

    It holds for shares near 0 and 1 too, and for few images.
    """
    import numpy as np
    from scipy.special import gammaln

    correct, total = round(one * images), round(one * images) + round(other * others)
    possible = np.arange(max(0, total - others), min(images, total) + 1)  # of the first, if both are of one kind
    ways = [
        gammaln(number + 1) - gammaln(part + 1) - gammaln(number - part + 1)
        for number, part in ((images, possible), (others, total - possible))
    ]
    likelihood = np.exp(sum(ways) - np.max(sum(ways)))
    as_unlikely = likelihood <= likelihood[correct - possible[0]] * (1 + 1e-7)
    return bool(likelihood[as_unlikely].sum() > 0.05 * likelihood.sum())

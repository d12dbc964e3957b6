"""What one setting changes, everything else being alike: over all other settings of a sweep, and all seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from cnnbench.reports.statistics import Difference, estimate, seeds_needed


@dataclass(frozen=True)
class Effect:
    """What the metric gains where a setting has one value instead of another. settings: pairs of configurations."""

    key: str
    before: str
    after: str
    settings: int
    gained: Difference


def effects(cells: Sequence[Mapping[str, str]], measured: Sequence[Mapping[int, float]]) -> list[Effect]:
    """Return, for each setting, what each value gains over that of the first configuration.

    cells: the settings in which configurations differ, of each. measured: the metric by seed, of each.
    Configurations are held against those that are like them in all other keys, seed by seed; where there are none,
    there is no effect to tell.
    """
    found = []
    for key in cells[0]:
        before = cells[0][key]
        for after in dict.fromkeys(cell[key] for cell in cells):
            pairs = [
                (one, other)
                for one, cell in zip(measured, cells, strict=True)
                for other, opposite in zip(measured, cells, strict=True)
                if cell[key] == after != before and opposite == {**cell, key: before}
            ]
            gains = chain.from_iterable(
                [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())] for one, other in pairs
            )
            gained = estimate(list(gains))
            if gained.n:
                found.append(Effect(key, before, after, len(pairs), Difference(gained, seeds_needed(gained))))
    return found

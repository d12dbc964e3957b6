"""What one setting changes, everything else being alike: over all other settings of a sweep, and all seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from cnnbench.analysis.reports.statistics import Difference, estimate, seeds_needed


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
        # By what is alike: a look for each, not one at each pair.
        places = {_alike(cell, key, cell[key]): measured[number] for number, cell in enumerate(cells)}
        before = cells[0][key]
        for after in dict.fromkeys(cell[key] for cell in cells if cell[key] != before):
            pairs = [
                (measured[number], places[_alike(cell, key, before)])
                for number, cell in enumerate(cells)
                if cell[key] == after and _alike(cell, key, before) in places
            ]
            gains = chain.from_iterable(
                [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())] for one, other in pairs
            )
            gained = estimate(list(gains))
            if gained.n:
                found.append(Effect(key, before, after, len(pairs), Difference(gained, seeds_needed(gained))))
    return found


def _alike(cell: Mapping[str, str], key: str, value: str) -> tuple[str, ...]:
    """Return the values of a configuration, with another one of a setting."""
    return tuple(value if name == key else own for name, own in cell.items())

"""A training that begins with something: settings of what it starts from, what stays as it is, what is put on top."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from cnnbench.registry import Section

Words = Annotated[
    list[str],
    BeforeValidator(lambda words: [words] if isinstance(words, str) else words),
    Field(min_length=1, description="features, all_but_head, or names or patterns of modules"),
]


def _by_dotted_name(values: Any, above: str = "") -> Any:
    """Return nested values by dotted name: a name that is typed with dots arrives nested."""
    if not isinstance(values, Mapping):
        return {above: values} if above else values
    inner = [_by_dotted_name(value, f"{above}.{key}".lstrip(".")) for key, value in values.items()]
    return {name: value for leaves in inner for name, value in leaves.items()}


Factors = Annotated[
    dict[str, PositiveFloat],
    BeforeValidator(_by_dotted_name),
    Field(description="numbers above 0 by head, features, or names or patterns of modules"),
]


class InitConfig(Section):
    """What the weights are at the beginning, instead of chance: those of one of run, experiment, weights and file.

    run: folder of a run. experiment: name of one that was trained, whose run is looked for. checkpoint: which of the
    weights of either. weights: published ones of the model. file: a state dict.
    """

    run: str | None = None
    experiment: str | None = None
    checkpoint: Literal["best", "last"] = "best"
    weights: Literal["imagenet"] | None = None
    file: str | None = None


class FreezeConfig(Section):
    """What of the network stays as it is: for the first `epochs`, or always.

    what: `features`, `all_but_head`, modules by name or pattern. then_lr: factor on the learning rate from then on.
    """

    what: Words | None = None
    epochs: PositiveInt | None = None
    then_lr: PositiveFloat | None = None


class HeadConfig(Section):
    """Dense layers before the last layer of a network, each followed by ReLU and dropout; none: as it is."""

    units: list[PositiveInt] = Field(default=[])
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True)
class Source:
    """Weights that are somewhere, not loaded yet.

    given: the setting that named them. name: the same for the same weights, wherever they lie. told: what a sentence
    calls them. facts: what is known of them, plain values. data: what `run.json` says of the data they were trained on.
    """

    given: str
    name: str
    told: str
    load: Callable[[], Mapping[str, Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

"""Types of settings that several augmentations have."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat


def _ascending(values: list[float]) -> list[float]:
    if values[0] > values[1]:
        raise ValueError
    return values


Probability = Annotated[float, Field(ge=0, le=1)]
Areas = Annotated[
    list[Annotated[float, Field(gt=0, le=1)]],
    Field(min_length=2, max_length=2, description="[lowest, highest] share of an image's area, above 0 and at most 1"),
    AfterValidator(_ascending),
]
Factors = Annotated[
    list[PositiveFloat],
    Field(min_length=2, max_length=2, description="[lowest, highest], two numbers above 0"),
    AfterValidator(_ascending),
]

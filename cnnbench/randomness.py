"""Randomness is a function, not a state: every draw follows from the seed, what it is for, and when.

Nothing has to be saved for a run to be continued exactly, and no worker can disturb another's draws.
"""

import hashlib

import torch
from torch import Tensor


def derive_seed(seed: int, purpose: str, when: int = 0) -> int:
    """Return a seed of 32 bits that follows from the run's seed, a purpose and an epoch or step.

    32 bits, because that is all that torch's generator on the CPU makes use of.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{when}".encode()).digest()[:4], "little")


def generator(seed: int, purpose: str, when: int = 0) -> torch.Generator:
    """Return a generator on the CPU, so that the draws are the same whatever device they are used on."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, when))


def uniform_table(num_rows: int, num_columns: int, seed: int, purpose: str, epoch: int) -> Tensor:
    """Return draws from [0, 1), float32 [num_rows, num_columns]; the row of an image does not depend on its batch."""
    return torch.rand(num_rows, num_columns, generator=generator(seed, purpose, epoch))


def seed_layers(seed: int, purpose: str, when: int, device: torch.device) -> None:
    """Set the global generators, which layers such as dropout draw from."""
    derived = derive_seed(seed, purpose, when)
    torch.default_generator.manual_seed(derived)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(derived)
    elif device.type == "mps":
        torch.mps.manual_seed(derived)

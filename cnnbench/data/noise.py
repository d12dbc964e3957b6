"""Labels that are wrong on purpose: how well does a network learn from careless work?"""

import torch
from torch import Tensor

from cnnbench.errors import UserError
from cnnbench.randomness import generator


def wrong_on_purpose(labels: Tensor, num_classes: int, rate: float, seed: int) -> tuple[Tensor, int]:
    """Return the labels with the nearest whole number of `rate` of them replaced, and how many these are.

    labels: int64 [N]. rate: in [0, 1). A replaced label is any of the other classes, each as likely. The result depends
    on the arguments only, and what is wrong at one rate is wrong, and in the same way, at every higher one.
    Raises UserError where the rate selects none, or there is no other class.
    """
    if rate == 0:
        return labels, 0
    number = round(rate * len(labels))
    if number == 0:
        raise UserError(f"data.label_noise={rate}: selects none of {len(labels)} images; give more, or 0 for none.")
    if num_classes < 2:
        raise UserError(f"data.label_noise={rate}: with one class there is no wrong label; give 0.")
    draws = generator(seed, "label noise")
    chosen = torch.randperm(len(labels), generator=draws)[:number]
    steps = torch.randint(1, num_classes, (len(labels),), generator=draws)  # round the classes, never back to the own
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + steps[chosen]) % num_classes
    return noisy, number

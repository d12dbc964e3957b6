"""On a GPU a step waits for nothing, and mixes no devices; seen without one."""

import pytest
import torch

from cnnbench.optim.optimizers import penalty
from cnnbench.training.step import compute_gradients
from tests.support.pretended_gpu import NothingIsCopied, pretended
from tests.support.training import SMALL

COLOUR = (*SMALL, "data.channels=3", "data.image_size=20", "data.crop=16")
CASES = {
    "plain": (),
    "minialexnet_v4": ("model=minialexnet_v4", "batch_size=16"),
    "crop and flip": ("augmentation=crop_flip",),
    "padded": ("augmentation=pad_crop_flip",),
    "resized crop": ("augmentation=resized_crop_flip",),
    "jitter": ("augmentation=jitter",),
    "affine": ("augmentation=affine",),
    "erasing": ("augmentation=erasing",),
    "cutout": ("augmentation=cutout",),
    "penalties": ("regularization.l1=0.001", "regularization.l2=0.001"),
    "class weights": ("task.class_weights=balanced",),
    "exponential average": ("regularization.average.kind=ema",),
    "parts of batches": ("accumulate=2",),
    "autoencoder": ("task=autoencoder",),
    "siamese": ("task=siamese",),
    "triplet": ("task=triplet",),
}


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # where a network is copied
@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_nothing(case):
    with pretended(*COLOUR, *CASES[case]) as (training, batches):
        compute_gradients(training, next(batches))
        with NothingIsCopied():
            sums = compute_gradients(training, next(batches))
            if training.average is not None:
                training.average.after_step()
                training.average.after_step()
        assert sums.device == training.device


def test_what_waits_is_noticed():
    with pretended(*COLOUR) as (_, batches):
        labels = next(batches).labels
        with NothingIsCopied(), pytest.raises(AssertionError, match="from cuda:0 to cpu"):
            labels.cpu()
        with pytest.raises(RuntimeError):
            labels.sum().item()


def test_a_penalty_is_where_the_weights_are():
    with pretended(*COLOUR) as (training, _), NothingIsCopied():
        assert penalty(list(training.network.parameters()), 0.1, 0.1).device == training.device
    assert penalty([], 0.1, 0.1) == torch.zeros(())

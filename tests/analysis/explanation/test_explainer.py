"""The images that are explained, and views of them by the run's own augmentation."""

import pytest
import torch

from cnnbench.analysis.explanation.explainer import NUM_VIEWS, explainer_of
from cnnbench.analysis.explanation.layers import (
    NotPossible,
)  # fmt: skip
from cnnbench.analysis.run import load_run
from tests.support.explaining import NETWORKS, untrained
from tests.support.training import SHARED, prepared


def test_the_network_sees_cropped_and_normalised_images(explainer):
    data = explainer.run.data("test").take(torch.tensor([0, 3, 5]))[:, :, 2:18, 2:18] / 255
    mean, std = (torch.tensor(explainer.run.record["data"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(explainer.images, (data - mean) / std, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(explainer.pixels(explainer.images), data, rtol=1e-4, atol=1e-5)


def test_a_training_image_is_augmented_as_in_its_epochs(finished_once):
    explainer, _ = explainer_of(load_run(finished_once(*SHARED)), "best", [], "train", [7, 3])
    views, parts, blending = explainer.augmented_views()
    assert (parts, blending, len(views)) == (("crop", "flip", "jitter"), (), NUM_VIEWS)
    train = prepared(*SHARED).train
    for epoch, view in enumerate(views, start=1):
        (batch,) = train.epoch(torch.tensor([7]), 1, epoch)
        assert torch.equal(view, batch.images[0])


def test_views_of_any_other_image_differ_and_are_repeatable(explainer):
    views, again = explainer.augmented_views()[0], explainer.augmented_views()[0]
    assert torch.equal(views, again)
    assert all(not torch.equal(one, other) for at, one in enumerate(views) for other in views[at + 1 :])


NO_LOOKS = {"none": "the run has no augmentation", "mixup": "the run's augmentation, 'mixup', blends"}


@pytest.mark.parametrize("augmentation", NO_LOOKS)
def test_without_an_augmentation_of_single_images_there_are_no_views(augmentation):
    explainer = untrained(*NETWORKS["lenet"], f"augmentation={augmentation}")
    with pytest.raises(NotPossible, match=NO_LOOKS[augmentation]):
        explainer.augmented_views()

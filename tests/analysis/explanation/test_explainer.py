"""The images that are explained, and views of them by the run's own augmentation."""

import torch


def test_the_network_sees_cropped_and_normalised_images(explainer):
    data = explainer.run.data("test").take(torch.tensor([0, 3, 5]))[:, :, 2:18, 2:18] / 255
    mean, std = (torch.tensor(explainer.run.record["data"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(explainer.images, (data - mean) / std, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(explainer.pixels(explainer.images), data, rtol=1e-4, atol=1e-5)

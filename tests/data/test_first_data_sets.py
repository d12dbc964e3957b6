"""What people write first when they write a data set: each works, or is answered in a sentence."""

import pytest

from tests.support.first_plugins import First, assert_trains_or_is_refused

DATA = '''
@registry.register_dataset("first_data")
def first_data(root):
    """Dark and bright."""
    labels = torch.arange(60) % 2
    pixels = labels.view(-1, 1, 1, 1).expand(-1, 1, 16, 16) * 200
    return {returned}
'''

FILES = {
    "a data set of torch": First(
        DATA.format(returned="torch.utils.data.TensorDataset(pixels, labels)"),
        "data=first_data",
        "plugin.py:10: data 'first_data': returns a TensorDataset, and must return an ImageData",
    ),
    "a data set of float images": First(
        DATA.format(returned='ImageData(*[Images(pixels / 255, labels)] * 2, ("dark", "bright"))'),
        "data=first_data",
        "pixels must be uint8 [N, C, H, W], and are torch.float32 [60, 1, 16, 16]",
    ),
    "a data set of arrays": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte().numpy(), labels)] * 2, ("dark", "bright"))'),
        "data=first_data",
        "pixels must be a tensor, and are a ndarray; torch.as_tensor makes one of it.",
    ),
    "a data set whose test images are smaller": First(
        DATA.format(
            returned="ImageData(*[Images(one.byte(), labels) for one in (pixels, pixels[..., 8:])], ('dark', 'bright'))"
        ),
        "data=first_data",
        "the data set's test images have 1 x 16 x 8 pixels, the others 1 x 16 x 16; set data.image_size.",
    ),
    "a data set with channels last": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte().permute(0, 2, 3, 1), labels)] * 2, ("dark", "bright"))'),
        "data=first_data",
        "part 'train': pixels [60, 16, 16, 1] look like [N, H, W, C]; use .permute(0, 3, 1, 2).",
    ),
    "a data set whose classes have one name": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte(), labels)] * 2, ("dark", "bright", "dark"))'),
        "data=first_data",
        "the data set's classes 0 and 2 are both called 'dark'; give each a name of its own.",
    ),
    "a data set without images": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte()[:0], labels[:0])] * 2, ("dark", "bright"))'),
        "data=first_data",
        "plugin.py:10: data 'first_data' returns no image to train on; it looks in ",
    ),
    "a data set that fails in several lines": First(
        DATA.format(returned="int('a\\nb'[:0] or {}['two\\n lines'])"),
        "data=first_data",
        "data 'first_data' cannot be read: plugin.py:15: KeyError: ",
    ),
    "a data set that fails": First(
        DATA.format(returned="[][0]"),
        "data=first_data",
        "data 'first_data' cannot be read: plugin.py:15: IndexError: list index out of range.",
    ),
    "a data set with test images to train on": First(
        DATA.format(
            returned='ImageData(*[Images(one, labels) for one in (own, torch.cat([own[:9], own[9:] + 1]))], ("a", "b"))'
        ).replace("    return", "    own = (torch.arange(60).view(-1, 1, 1, 1) * 2 + pixels * 0).byte()\n    return"),
        "data=first_data",
        says="note        9 of 60 test images are among the training images, pixel for pixel",
    ),
    "a data set of pixels from 0 to 1": First(
        DATA.format(returned='ImageData(*[Images((pixels > 9).byte(), labels)] * 2, ("dark", "bright"))'),
        "data=first_data",
        says="pixels are 0 and 1, of 0 to 255: numbers from 0 to 1 become pixels by (255 * x).round()",
    ),
    "a data set": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte(), labels)] * 2, ("dark", "bright"))'), "data=first_data"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_first_data_set_trains_or_is_refused_in_a_sentence(name, cnnbench, outputs, tmp_path):
    assert_trains_or_is_refused(FILES[name], cnnbench, outputs, tmp_path)

"""What people write first when they write an augmentation: each works, or is answered in a sentence."""

import pytest

from tests.support.first_plugins import First, assert_trains_or_is_refused

INVERT = '''
@registry.register_augmentation("first_invert")
class Invert(Augmentation):
    """A negative of every image."""

    changes_pixels = True

    def apply(self, images, draws):
        return 1 - images
'''

FILES = {
    "an augmentation without an order, chosen as an option": First(
        INVERT, "augmentation=first_invert", says="augmentation.first_invert  none"
    ),
    "an augmentation of another shape": First(
        INVERT.replace("1 - images", "images[:, :, :4]"),
        "augmentation=first_invert",
        "plugin.py:10: augmentation 'first_invert': apply returns torch.float32 of shape (3, 1, 4, 16), not torch",
    ),
    "an augmentation of another type": First(
        INVERT.replace("1 - images", "images.double()"),
        "augmentation=first_invert",
        "apply returns torch.float64 of shape (3, 1, 16, 16), not torch.float32 of shape (3, 1, 16, 16).",
    ),
    "an augmentation that loses an image": First(
        INVERT.replace("1 - images", "images[:-1]"),
        "augmentation=first_invert",
        "apply returns torch.float32 of shape (2, 1, 16, 16), not torch.float32 of shape (3, 1, 16, 16).",
    ),
    "an augmentation that divides by zero": First(
        INVERT.replace("1 - images", "images / images.new_zeros(1) * 0"),
        "augmentation=first_invert",
        "augmentation 'first_invert': apply returns numbers that are not finite.",
    ),
    "an augmentation that fails": First(
        INVERT.replace("1 - images", "1 - image"),
        "augmentation=first_invert",
        "plugin.py:10: augmentation 'first_invert' fails on the first images: plugin.py:17: NameError: name 'image'",
    ),
    "an augmentation that computes in another type": First(
        INVERT.replace("1 - images", "images.bool() @ images"),
        "augmentation=first_invert",
        ". It gets images, torch.float32 of shape (3, 1, 16, 16) in [0, 1], and has to return such images\n",
    ),
    "an augmentation that fails in several lines": First(
        INVERT.replace("return 1 - images", "raise ValueError('one\\n  two')"),
        "augmentation=first_invert",
        "'first_invert' fails on the first images: plugin.py:17: ValueError: one two. It gets images, torch.float32 of",
    ),
    "an augmentation for pixels up to 255": First(
        INVERT.replace("1 - images", "images * 255"),
        "augmentation=first_invert",
        says="note: augmentation.first_invert: apply gets pixels from",
    ),
    "an augmentation that divides by 255 once more": First(
        INVERT.replace("1 - images", "images / 255"),
        "augmentation=first_invert",
        says="note: augmentation.first_invert: apply gets pixels from",
    ),
    "an augmentation that mixes without shares": First(
        INVERT.replace("changes_pixels", "mix_probability").replace("apply(", "mix(").replace("draws", "*_"),
        "augmentation=first_invert",
        "'first_invert': mix returns a list, not torch.float32 of shape (3, 1, 16, 16), and a share of each",
    ),
    "an augmentation that cannot be made": First(
        INVERT.replace("changes_pixels = True", "changes_pixels = True\n\n    def __init__(self):\n        self.a = b"),
        "augmentation=first_invert",
        "augmentation 'first_invert': cannot be made: plugin.py:17: NameError: name 'b' is not defined.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_first_augmentation_trains_or_is_refused_in_a_sentence(name, cnnbench, outputs, tmp_path):
    assert_trains_or_is_refused(FILES[name], cnnbench, outputs, tmp_path)

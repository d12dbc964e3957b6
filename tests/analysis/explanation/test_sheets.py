"""What is drawn: every value in its place, on the scale that the title names."""

import numpy as np
import pytest
import torch

from cnnbench.analysis.explanation import sheets


def tile_of(drawn, number: int, columns: int, size) -> torch.Tensor:
    """Return the values that are drawn as a tile, one for each square."""
    height, width = size[:2]
    times = -(-sheets.TILE // max(height, width))
    gap = sheets.TILE // 12
    down, right = number // columns * (height * times + gap), number % columns * (width * times + gap)
    page = np.asarray(drawn.get_array().filled(np.nan), dtype=np.float32)
    return torch.from_numpy(page[down : down + height * times : times, right : right + width * times : times])


def test_maps_are_drawn_on_one_scale_each_in_its_place():
    maps = torch.randn(7, 5, 6, generator=torch.Generator().manual_seed(0))
    figure = sheets.maps_sheet(maps, torch.zeros(1, 5, 6), "title")
    (drawn,) = figure.axes[1].images
    assert drawn.get_clim() == pytest.approx((-float(maps.abs().max()), float(maps.abs().max())))
    assert figure.get_suptitle() == "title; all on one scale"
    columns = len(figure.axes[1].get_xticks())
    for number, one in enumerate(maps):
        torch.testing.assert_close(tile_of(drawn, number, columns, one.shape), one)
    labels = [int(label.get_text()) for label in figure.axes[1].get_yticklabels()]
    assert labels == list(range(0, 7, columns))
    assert sheets.maps_sheet(maps.relu(), torch.zeros(1, 5, 6), "").axes[1].images[0].get_clim()[0] == 0


@pytest.mark.parametrize(
    ("number", "columns"), [(1, 1), (2, 2), (3, 3), (6, 3), (16, 4), (64, 8), (120, 12), (256, 16)]
)
def test_grids_leave_few_places_empty(number, columns):
    assert sheets.grid_for(number)[1] == columns


def test_kernels_of_colour_images_are_in_colour_and_gray_is_zero():
    weights = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    figure = sheets.kernels_sheet(weights, "title")
    (drawn,) = figure.axes[0].images
    reach = float(weights.abs().max())
    assert figure.get_suptitle() == f"title; gray is zero, full colour ±{reach:.2g}"
    columns = len(figure.axes[0].get_xticks())
    for number, kernel in enumerate(weights):
        shown = tile_of(drawn, number, columns, (5, 5))
        torch.testing.assert_close(shown, kernel.permute(1, 2, 0) / reach / 2 + 0.5)


def test_kernels_of_gray_images_have_zero_in_the_middle_of_their_scale():
    weights = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    (drawn,) = sheets.kernels_sheet(weights, "").axes[0].images
    assert drawn.get_clim() == pytest.approx((-float(weights.abs().max()), float(weights.abs().max())))
    for number, kernel in enumerate(weights):
        torch.testing.assert_close(tile_of(drawn, number, 3, (3, 3)), kernel[0])


def test_a_heat_map_is_overlaid_on_a_scale_of_its_own():
    images = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    shares = torch.zeros(2, 6, 5)
    shares[1, 2, 3], shares[1, 4, 4] = 0.02, 0.01
    figure = sheets.pairs_sheet(images, shares, ["one", "other"], "title", is_overlaid=True)
    first, second = (np.asarray(figure.axes[place].images[0].get_array()) for place in (1, 3))
    gray = sheets.DIMMED * images.mean(1).numpy()
    assert first == pytest.approx(gray[0, ..., None].repeat(3, axis=2), abs=1e-6)
    glow = (second - gray[1, ..., None]).sum(2)
    assert glow.argmax() == 2 * 5 + 3
    assert (glow > 1e-3).sum() == 2
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["one", "", "other", ""]

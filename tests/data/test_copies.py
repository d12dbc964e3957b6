"""Copies of a photograph are in one part, whatever is drawn; where no copies are divided, a split stays as it was."""

import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from cnnbench.config.schema import Subset
from cnnbench.data.prepare import PreparedData
from cnnbench.data.split import k_fold, keep_together, stratified_split
from cnnbench.errors import SettingError
from tests.support.photographs import prepared, write_classes, write_parts
from tests.support.zoo import LABELS
from tests.support.zoo import prepared as prepared_zoo

# Drawing --------------------------------------------------------------------------------------------------------------

UNEVEN = torch.repeat_interleave(torch.arange(4), torch.tensor([40, 7, 21, 12]))


def groups_of(sizes: list[int], seed: int, labels: torch.Tensor = UNEVEN) -> torch.Tensor:
    """Return numbers of contents: groups of these sizes, anywhere in the first class and in all of them."""
    copies, draws = torch.arange(len(labels)), torch.Generator().manual_seed(seed)
    free = torch.randperm(len(labels), generator=draws).tolist()
    for size in sizes:
        rows, free = free[:size], free[size:]
        copies[rows] = copies[rows[0]].clone()
    return copies


def is_divided(held_out: torch.Tensor, copies: torch.Tensor) -> bool:
    inside = torch.zeros(len(copies), dtype=torch.bool)
    inside[held_out] = True
    return not set(copies[inside].tolist()).isdisjoint(copies[~inside].tolist())


@pytest.mark.parametrize("sizes", [[2] * 15, [3, 3, 2], [9, 4], [2]], ids=str)
@pytest.mark.parametrize("seed", range(20))
def test_no_draw_divides_copies_and_those_that_divided_none_stay_as_they_were(sizes, seed):
    copies = groups_of(sizes, seed)
    blind, split = stratified_split(UNEVEN, 4, 0.2, seed), stratified_split(UNEVEN, 4, 0.2, seed, copies=copies)
    assert not is_divided(split.val, copies)
    if not is_divided(blind.val, copies):
        assert torch.equal(split.val, blind.val)
    for fold in range(5):
        blind, split = k_fold(UNEVEN, 4, 5, fold, seed), k_fold(UNEVEN, 4, 5, fold, seed, copies)
        assert not is_divided(split.val, copies)
        if not is_divided(blind.val, copies):
            assert torch.equal(split.val, blind.val)


@pytest.mark.parametrize("seed", range(20))
def test_folds_with_copies_are_disjoint_and_complete(seed):
    parts = [k_fold(UNEVEN, 4, 5, fold, seed, groups_of([2] * 15, seed)).val for fold in range(5)]
    assert torch.cat(parts).sort().values.tolist() == list(range(len(UNEVEN)))


@pytest.mark.parametrize("seed", range(20))
def test_copies_within_a_class_cost_no_class_its_share(seed):
    labels = torch.arange(120) % 3
    copies = torch.arange(120)
    copies[60:75] = copies[30:45]  # the same classes
    blind, split = stratified_split(labels, 3, 0.15, seed), stratified_split(labels, 3, 0.15, seed, copies=copies)
    assert torch.bincount(labels[split.val]).tolist() == torch.bincount(labels[blind.val]).tolist()


def test_a_set_in_which_every_image_is_there_twice_has_its_share_of_validation():
    labels, copies = torch.zeros(60, dtype=torch.int64), torch.arange(60) % 30
    assert len(stratified_split(labels, 1, 0.2, 0, copies=copies).val) == 12
    assert [len(k_fold(labels, 1, 5, fold, 0, copies).val) for fold in range(5)] == [12] * 5


def test_a_class_of_pairs_is_validated_too():
    labels, copies = torch.zeros(10, dtype=torch.int64), torch.arange(10) % 5
    assert [len(stratified_split(labels, 1, 0.1, seed, copies=copies).val) for seed in range(5)] == [2] * 5


def test_which_images_a_draw_holds_out_depends_on_the_seed():
    labels, copies = torch.zeros(60, dtype=torch.int64), torch.arange(60) % 30
    seen = torch.cat([stratified_split(labels, 1, 0.2, seed, copies=copies).val for seed in range(40)])
    assert len(seen.unique()) == 60


def test_a_picture_of_two_classes_stays_together():
    labels, copies = torch.arange(40) % 2, torch.arange(40)
    copies[1] = 0
    for seed in range(20):
        assert not is_divided(stratified_split(labels, 2, 0.3, seed, copies=copies).val, copies)


def test_classes_without_divided_copies_keep_their_draw():
    labels, copies = torch.arange(60) % 3, torch.arange(60)
    parts = torch.arange(60) // 3 % 2
    copies[3] = 0  # of class 0, in the other part
    changed = keep_together(parts, labels, copies, 0)
    assert changed[3] == changed[0]
    assert torch.equal(changed[labels != 0], parts[labels != 0])


@pytest.mark.parametrize(
    ("copies", "fraction", "message"),
    [
        (torch.zeros(10, dtype=torch.int64), 0.6, r"class 0 has 10 images, none would be left to train on"),
        (torch.zeros(10, dtype=torch.int64), 0.2, "leaves no image to validate on: copies stay together"),
    ],
    ids=["none to train", "none to validate"],
)
def test_a_class_that_is_one_picture_is_a_clear_error(copies, fraction, message):
    with pytest.raises(SettingError, match=message):
        stratified_split(torch.zeros(10, dtype=torch.int64), 1, fraction, 0, copies=copies)


def test_the_rows_of_folds_never_change():
    folds = [k_fold(torch.arange(20) % 4, 4, 4, fold, 0).val.tolist() for fold in range(4)]
    assert folds == [[0, 1, 7, 10, 12], [4, 6, 9, 13, 15], [3, 14, 16, 17, 18], [2, 5, 8, 11, 19]]


# Photographs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path) -> Path:
    """Two classes of 30 files, three of which are copies of others in the class."""
    own = write_classes(tmp_path / "own", {"a": 27, "b": 27})
    for name in "ab":
        for index in range(3):
            shutil.copy(own / name / f"{index:04}.png", own / name / f"copy{index}.png")
    return own


def prepare_own(own: Path, on_problem: str = "error", **shared) -> PreparedData:
    return prepared("image_folder", own.parent, shared, folder="own", on_problem=on_problem)


def part_by_content(data: PreparedData) -> dict[bytes, set[str]]:
    """Return in which splits each content is."""
    parts: dict[bytes, set[str]] = {}
    for split in ("train", "val", "test"):
        for file in getattr(data, split).files():
            parts.setdefault(Path(file).read_bytes(), set()).add(split)
    return parts


DRAWS = [{"split_seed": seed} for seed in range(5)] + [{"folds": 5, "fold": fold} for fold in range(5)]


@pytest.mark.parametrize("draw", DRAWS, ids=str)
def test_copies_are_in_one_part_whatever_is_drawn(copied, draw):
    data = prepare_own(copied, **draw)
    parts = part_by_content(data)
    assert len(parts) == 54
    assert all(len(where) == 1 for where in parts.values())
    assert [len(part) for part in (data.train, data.val, data.test)] == [36, 9, 15]


def test_the_test_part_is_the_same_for_every_seed_and_fold(copied):
    tested = {prepare_own(copied, **draw).test.files() for draw in DRAWS}
    assert len(tested) == 1
    assert [len(files) for files in tested] == [15]


def test_labels_follow_their_files_when_the_test_part_is_drawn_again(copied):
    data = prepare_own(copied)
    for part in (data.train, data.val, data.test):
        assert [Path(file).parent.name for file in part.files()] == [data.spec.classes[n] for n in part.labels.tolist()]


def test_hashes_are_of_files_also_when_the_test_part_is_drawn_again(copied):
    data = prepare_own(copied)
    for split in ("train", "val", "test"):
        digests = [sha256(Path(file).read_bytes()).digest() for file in getattr(data, split).files()]
        first = [int.from_bytes(digest[:8], "little", signed=True) for digest in digests]
        assert data.hashes[split].tolist() == first
    assert not data.copied.any()


def test_a_note_names_copies_next_to_each_other(copied):
    (note,) = prepare_own(copied).notes
    pairs = ", ".join(f"{name}/{index:04}.png = {name}/copy{index}.png" for name in "ab" for index in range(3))
    assert note == f"copies: 6 files with the content of another one, in the same part as that one: {pairs}"


@pytest.mark.parametrize("layout", ["one folder", "parts"])
def test_a_picture_with_two_labels_is_named_also_within_training(tmp_path, layout):
    each = {"a": 12, "b": 12}
    parts = {"": each} if layout == "one folder" else {"train": each, "val": each, "test": each}
    own = write_parts(tmp_path / "own", parts)
    where = own if layout == "one folder" else own / "train"
    shutil.copy(where / "a" / "0005.png", where / "b" / "other.png")
    above = "" if layout == "one folder" else "train/"
    assert prepare_own(own).notes[-1] == (
        f"labels: 1 picture with several labels: {above}a/0005.png = {above}b/other.png"
    )


def test_many_copies_of_many_pictures_are_a_short_note(tmp_path):
    own = write_classes(tmp_path / "own", {"a": 30, "b": 30})
    for index in range(30):
        for copy in range(5):
            shutil.copy(own / "a" / f"{index:04}.png", own / "a" / f"{index:04}-{copy}.png")
    (note,) = prepare_own(own).notes
    assert note.startswith("copies: 150 files with")
    assert note.endswith(" and 2 more and 10 more")
    assert len(note) < 20 * 4 * 25


def test_a_copy_of_the_own_validation_part_is_not_tested(tmp_path):
    own = write_parts(tmp_path / "own", {"train": {"a": 20, "b": 20}, "val": {"a": 4, "b": 4}})
    tested = Path(prepare_own(own).test.files()[0])
    shutil.copy(tested, own / "val" / tested.parent.name / "copy.png")
    data = prepare_own(own, "skip")
    assert [len(where) for where in part_by_content(data).values()] == [1] * 48


# What was accepted stays ----------------------------------------------------------------------------------------------

TESTED = ["a/0002", "a/0005", "a/0006", "b/0000", "b/0002", "b/0008", "c/0006", "c/0009"]
# Validated rows and number of training images, as drawn when copies were not looked for; the others were refused.
ACCEPTED = [
    ({"split_seed": 1}, [3, 4, 8, 20, 21], 18),
    ({"split_seed": 2}, [1, 3, 11, 16, 17], 18),
    ({"folds": 5, "fold": 1}, [3, 6, 13, 18, 20], 18),
    ({"folds": 5, "fold": 3}, [0, 10, 11, 19], 19),
    ({"folds": 5, "fold": 4}, [1, 12, 14, 17], 19),
    ({"on_problem": "skip"}, [4, 5, 11, 17, 20], 17),
    ({"on_problem": "skip", "split_seed": 1}, [3, 4, 8, 20, 21], 18),
    ({"subset": Subset(classes=["b", "c"])}, [12, 16, 19], 12),
]


@pytest.mark.parametrize(("settings", "val", "num_train"), ACCEPTED, ids=str)
def test_a_split_that_divided_no_copies_is_kept_row_for_row(tmp_path, settings, val, num_train):
    own = write_classes(tmp_path / "own", {"a": 10, "b": 10, "c": 10})
    shutil.copy(own / "a" / "0008.png", own / "a" / "copy8.png")
    data = prepare_own(own, **settings)
    assert (data.split.val.tolist(), len(data.split.train)) == (val, num_train)
    tested = [f"{Path(file).parent.name}/{Path(file).stem}" for file in data.test.files()]
    assert tested == [name for name in TESTED if name[0] in data.spec.classes]


def test_copies_of_a_class_that_is_not_used_change_nothing(tmp_path):
    own = write_classes(tmp_path / "own", {"a": 10, "b": 10, "c": 10})
    shutil.copy(own / "a" / "0005.png", own / "a" / "copy5.png")  # of a test image, into training
    data = prepare_own(own, subset=Subset(classes=["b", "c"]))
    assert data.split.val.tolist() == [12, 16, 19]
    assert [Path(file).stem for file in data.test.files()] == ["0000", "0002", "0008", "0006", "0009"]


def test_copies_that_a_subset_leaves_out_change_nothing(tmp_path):
    own = write_classes(tmp_path / "own", {"a": 10, "b": 10, "c": 10})
    shutil.copy(own / "a" / "0005.png", own / "a" / "copy5.png")  # the last training image of its class
    data = prepare_own(own, subset=Subset(per_class=5))
    assert data.split.val.tolist() == [1, 11, 17]
    assert [f"{Path(file).parent.name}/{Path(file).stem}" for file in data.test.files()] == TESTED


def test_what_is_skipped_is_never_validated_and_tested_at_once(tmp_path):
    own = write_classes(tmp_path / "own", {"a": 10, "b": 10, "c": 10})
    for index in range(10):
        shutil.copy(own / "a" / f"{index:04}.png", own / "a" / f"copy{index}.png")
    for seed in range(5):
        data = prepare_own(own, "skip", split_seed=seed)
        assert all(len(where) == 1 for where in part_by_content(data).values())
        assert any("left out of training" in note for note in data.notes)


def test_images_without_files_are_split_as_ever(tmp_path):
    """Published sets in arrays, such as Fashion-MNIST, have copies, which their split has always divided."""

    assert torch.equal(prepared_zoo().split.val, stratified_split(LABELS, 4, 0.2, 0).val)

"""Files of data sets: read like the originals, refused where they are something else, downloaded where missing."""

import hashlib
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from cnnbench.data.cifar import CIFAR10, CIFAR100
from cnnbench.data.images import ImageData
from cnnbench.data.mnist import MNIST
from cnnbench.errors import UserError
from cnnbench.registry import DATASETS
from tests.support.archives import (
    CIFAR_SETS,
    IDX_SETS,
    NUM_TEST,
    NUM_TRAIN,
    SOURCES,
    Hostile,
    idx,
    pickled_by_python2,
    pickled_by_python3_with_bytes,
    write_cifar,
    write_idx_set,
    write_set,
)


def read(name: str, root: Path, verify: bool = False) -> ImageData:
    return DATASETS[name].factory(root, verify=verify)


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", IDX_SETS)
def test_idx_files_are_read_as_torchvision_reads_them(tmp_path, name, packed):
    import torchvision

    arrays = write_idx_set(tmp_path / IDX_SETS[name].folder, packed)
    data = read(name, tmp_path)
    assert torch.equal(data.train.pixels[:, 0], torch.from_numpy(arrays["train-images-idx3-ubyte"]))
    assert torch.equal(data.test.labels, torch.from_numpy(arrays["t10k-labels-idx1-ubyte"]).long())
    assert data.train.pixels.shape == (NUM_TRAIN, 1, 28, 28)
    assert len(data.classes) == 10
    if not packed:  # torchvision reads none of the .gz that it downloads
        theirs = getattr(torchvision.datasets, {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name])
        for train, part in ((True, data.train), (False, data.test)):
            assert torch.equal(theirs(tmp_path, train=train).data, part.pixels[:, 0])
            assert torch.equal(theirs(tmp_path, train=train).targets, part.labels)


@pytest.mark.parametrize("write", [pickled_by_python2, pickled_by_python3_with_bytes], ids=["python 2", "bytes keys"])
@pytest.mark.parametrize("name", CIFAR_SETS)
def test_cifar_pickles_are_read_in_the_order_of_their_files(tmp_path, name, write):
    contents = write_cifar(tmp_path, name, write)
    data = read(name, tmp_path)
    label_key = "fine_labels" if name == "cifar100" else "labels"
    train = [content for file, content in contents.items() if file == "train" or file.startswith("data_batch")]
    pixels = np.concatenate([part["data"] for part in train]).reshape(-1, 3, 32, 32)
    assert torch.equal(data.train.pixels, torch.from_numpy(pixels))
    assert data.train.labels.tolist() == [label for part in train for label in part[label_key]]
    assert len(data.test) == NUM_TEST
    assert data.classes[1] == "class 1"


def test_cifar10_is_read_as_torchvision_reads_it(tmp_path, monkeypatch):
    from torchvision.datasets import cifar

    write_cifar(tmp_path, "cifar10")
    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)
    data = read("cifar10", tmp_path)
    for train, part in ((True, data.train), (False, data.test)):
        theirs = cifar.CIFAR10(str(tmp_path), train=train)
        assert np.array_equal(theirs.data, part.pixels.permute(0, 2, 3, 1).numpy())
        assert theirs.targets == part.labels.tolist()


def test_class_names_pickled_as_bytes_become_text(tmp_path):
    write_cifar(tmp_path, "cifar10")
    names = {b"label_names": [f"class {index}".encode() for index in range(10)]}
    (tmp_path / CIFAR10.folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    assert read("cifar10", tmp_path).classes[3] == "class 3"


# Checksums ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_files_that_are_not_the_originals_are_refused_by_name(tmp_path, name):
    write_set(tmp_path, name)
    with pytest.raises(UserError, match=r"data\.verify=false") as refused:
        read(name, tmp_path, verify=True)
    assert str(tmp_path / SOURCES[name].folder / next(iter(SOURCES[name].files))) in str(refused.value)
    assert f"is not the original file of {SOURCES[name].title}" in str(refused.value)


@pytest.mark.parametrize("name", SOURCES)
def test_files_with_the_original_checksums_are_read(tmp_path, monkeypatch, name):
    folder = write_set(tmp_path, name)
    for file in SOURCES[name].files:
        monkeypatch.setitem(SOURCES[name].files, file, hashlib.md5((folder / file).read_bytes()).hexdigest())
    assert len(read(name, tmp_path, verify=True).test) == NUM_TEST


def test_checksums_are_those_of_the_unpacked_content(tmp_path, monkeypatch):
    arrays = write_idx_set(tmp_path / MNIST.folder, packed=True)
    for file, array in arrays.items():
        monkeypatch.setitem(MNIST.files, file, hashlib.md5(idx(array)).hexdigest())
    assert len(read("mnist", tmp_path, verify=True).train) == NUM_TRAIN


# Damaged and hostile files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path, file):
    contents = write_cifar(tmp_path, "cifar10")
    canary = tmp_path / "canary"
    payload = pickle.dumps({**contents[file], "more": [Hostile(canary)]}, protocol=2)
    (tmp_path / CIFAR10.folder / file).write_bytes(payload)
    with pytest.raises(UserError, match=rf"{file} cannot be read as a file of CIFAR-10: it would run posix\.mkdir"):
        read("cifar10", tmp_path)
    assert not canary.exists()
    pickle.loads(payload)  # the payload works
    assert canary.exists()


LABELS = np.zeros(NUM_TRAIN, dtype=np.uint8)
IMAGES = np.zeros((NUM_TRAIN, 28, 28), dtype=np.uint8)
BAD_IDX = {
    "empty file": ("train-images-idx3-ubyte", b"", "is no IDX file"),
    "text": ("train-images-idx3-ubyte", b"<html>404</html>", "is no IDX file"),
    "cut in the header": ("train-images-idx3-ubyte", idx(IMAGES)[:9], "cut short"),
    "nothing after the header": ("train-images-idx3-ubyte", idx(IMAGES)[:16], "cut short"),
    "cut in the images": ("train-images-idx3-ubyte", idx(IMAGES)[:5000], "cut short"),
    "too long": ("train-labels-idx1-ubyte", idx(LABELS) + b"0", "too long"),
    "one label less": ("train-labels-idx1-ubyte", idx(LABELS[1:]), "labels do not fit the images"),
    "label 10": ("train-labels-idx1-ubyte", idx(LABELS + 10), "labels do not fit the images"),
    "images without sides": ("train-images-idx3-ubyte", idx(LABELS), "train-images-idx3-ubyte|MNIST/raw/train"),
    "no images at all": ("train-images-idx3-ubyte", idx(IMAGES[:0]), "train-images-idx3-ubyte|MNIST/raw/train"),
}


@pytest.mark.parametrize(("name", "content", "problem"), BAD_IDX.values(), ids=BAD_IDX)
def test_a_damaged_idx_file_is_one_clear_error(tmp_path, name, content, problem):
    write_idx_set(tmp_path / MNIST.folder)
    (tmp_path / MNIST.folder / name).write_bytes(content)
    with pytest.raises(UserError, match=problem):
        read("mnist", tmp_path)


DAMAGES = {
    "cut": lambda packed: packed[: len(packed) // 2],
    "no gzip": lambda packed: b"<html>404</html>",
    "wrong checksum": lambda packed: packed[:-8] + b"0000" + packed[-4:],
    "wrong block": lambda packed: packed[:10] + b"\xff" + packed[11:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_gz_is_one_clear_error(tmp_path, damage):
    write_idx_set(tmp_path / MNIST.folder, packed=True)
    path = tmp_path / MNIST.folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte.*\.gz cannot be read"):
        read("mnist", tmp_path)


PIXELS = np.zeros((4, 3072), dtype=np.uint8)
BAD_CIFAR = {
    "a label less": ({"data": PIXELS, "labels": [0, 1, 2]}, "one label per image"),
    "rows too short in all files": ({"data": PIXELS[:, 1:], "labels": [0] * 4}, "3072 bytes"),
    "label 10": ({"data": PIXELS, "labels": [0, 1, 2, 10]}, "labels beyond the 10 classes"),
    "label -1": ({"data": PIXELS, "labels": [0, 1, 2, -1]}, "labels beyond the 10 classes"),
    "no labels": ({"data": PIXELS}, "has no entry 'labels'"),
    "labels that are words": ({"data": PIXELS, "labels": ["cat"] * 4}, "cifar-10-batches-py"),
    "no array": ({"data": "pixels", "labels": [0] * 4}, "cifar-10-batches-py"),
    "no dictionary": ([1, 2], "cannot be read as a file of CIFAR-10"),
}


@pytest.mark.parametrize("files", [["data_batch_2"], [f"data_batch_{n}" for n in range(1, 6)]], ids=["one", "all"])
@pytest.mark.parametrize(("content", "problem"), BAD_CIFAR.values(), ids=BAD_CIFAR)
def test_a_wrong_cifar_file_is_one_clear_error(tmp_path, files, content, problem):
    write_cifar(tmp_path, "cifar10")
    for file in files:
        pickled_by_python2(content, tmp_path / CIFAR10.folder / file)
    expected = problem if files[1:] or "all files" not in problem else "cifar-10-batches-py"
    with pytest.raises(UserError, match=expected):
        read("cifar10", tmp_path)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_cifar_file_that_was_cut_is_one_clear_error(tmp_path, share):
    write_cifar(tmp_path, "cifar100")
    path = tmp_path / CIFAR100.folder / "train"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match="cifar-100-python/train cannot be read as a file of CIFAR-100"):
        read("cifar100", tmp_path)


# Downloading ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch):
    def fail(*_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", fail)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", SOURCES)
def test_without_a_network_the_error_says_which_file_goes_where(tmp_path, name):
    source = SOURCES[name]
    with pytest.raises(UserError, match=f"{source.title} is not in .*no route to host") as missing:
        read(name, tmp_path / "root", verify=True)
    text = str(missing.value)
    assert str(tmp_path / "root" / source.folder) in text
    for word in (*source.files, *source.archives, "data.root=FOLDER", "CNNBENCH_DATA"):
        assert word in text
    assert not list((tmp_path / "root").iterdir()), "a scratch folder was left"


@pytest.mark.usefixtures("no_network")
def test_the_error_names_only_the_files_that_are_missing(tmp_path):
    write_idx_set(tmp_path / MNIST.folder)
    (tmp_path / MNIST.folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"missing there: t10k-labels-idx1-ubyte \(also as \.gz\)"):
        read("mnist", tmp_path)


class FakeNetwork:
    """Serves tiny archives, and records the requests."""

    def __init__(self, folder: Path, fail_after: int = 99) -> None:
        self.folder, self.left, self.requests = folder, fail_after, {}

    def _serve(self, url: str, folder: Path, md5: str | None) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.requests[url] = (folder, md5)
        folder.mkdir(parents=True, exist_ok=True)

    def download_url(self, url: str, root: str, filename: str | None = None, md5: str | None = None) -> None:
        self._serve(url, Path(root), md5)
        (Path(root) / filename).write_bytes((self.folder / filename).read_bytes())

    def download_and_extract_archive(
        self, url: str, download_root: str, filename: str | None = None, md5: str | None = None
    ) -> None:
        self._serve(url, Path(download_root), md5)
        folder = Path(download_root) / self.folder.name
        folder.mkdir()
        for path in self.folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())


def use_network(monkeypatch, network: FakeNetwork) -> FakeNetwork:
    for function in ("download_url", "download_and_extract_archive"):
        monkeypatch.setattr(f"torchvision.datasets.utils.{function}", getattr(network, function))
    return network


@pytest.mark.parametrize("name", SOURCES)
def test_missing_files_are_downloaded_to_a_scratch_folder_and_moved_into_place(tmp_path, monkeypatch, name):
    source, root = SOURCES[name], tmp_path / "root"
    if name in IDX_SETS:
        write_idx_set(tmp_path / "away", packed=True)
        away = tmp_path / "away"
    else:
        away = write_set(tmp_path / "away", name)
    network = use_network(monkeypatch, FakeNetwork(away))
    assert len(read(name, root).train) == NUM_TRAIN
    assert {url: md5 for url, (_, md5) in network.requests.items()} == source.archives
    assert all(".download-" in str(folder) and root in folder.parents for folder, _ in network.requests.values())
    assert not list(root.glob(".download-*"))
    assert len(list((root / source.folder).iterdir())) == len(source.files)


def test_a_download_does_not_touch_existing_files(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "away", packed=True)
    own = tmp_path / "root" / MNIST.folder / "train-labels-idx1-ubyte"
    own.parent.mkdir(parents=True)
    own.write_bytes(idx(np.full(NUM_TRAIN, 7, dtype=np.uint8)))
    use_network(monkeypatch, FakeNetwork(tmp_path / "away"))
    assert set(read("mnist", tmp_path / "root").train.labels.tolist()) == {7}


def test_an_interrupted_download_leaves_nothing_behind(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "away", packed=True)
    use_network(monkeypatch, FakeNetwork(tmp_path / "away", fail_after=2))
    with pytest.raises(KeyboardInterrupt):
        read("mnist", tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())

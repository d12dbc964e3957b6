"""Files of tensors that would run code, fill the memory or never end: refused in a moment, before torch reads them."""

import hashlib
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnbench.errors import UserError
from cnnbench.models.weights import read_state_dict
from cnnbench.store import checkpoint
from cnnbench.store.checkpoint import load, save
from cnnbench.store.files import CHECKSUM, checksum
from cnnbench.store.tensor_files import MAX_PICKLE, load_tensors
from tests.conftest import TINY
from tests.support.archives import Hostile
from tests.support.selection import diagonal, everyday

NUMBERS = torch.arange(3.0)
ADVICE = ("weights_only", "safe_globals", "torch.load", "trusted")
"""What torch says of files that it refuses: how to have their code run."""


def written(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def rewritten(
    change: Callable[[bytes], bytes] = lambda pickled: pickled, kind: int = zipfile.ZIP_STORED, **more: bytes
) -> bytes:
    """Return a file of three numbers with another pickle, compressed or with more entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(written({"a": NUMBERS}))) as before, zipfile.ZipFile(buffer, "w", kind) as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, change(content) if name.endswith("/data.pkl") else more.pop(name, content))
        for name, content in more.items():
            after.writestr(name, content)
    return buffer.getvalue()


def pickled(content: bytes) -> Callable[[], bytes]:
    return lambda: rewritten(lambda _: b"\x80\x02" + content + b".")


def claiming(number: int, before: bytes) -> Callable[[bytes], bytes]:
    """Return what replaces the three numbers, once, in front of an opcode: t ends the storage, \\x85 is the shape."""

    def change(content: bytes) -> bytes:
        assert content.count(b"K\x03" + before) == 1
        return content.replace(b"K\x03" + before, b"\x8a\x07" + number.to_bytes(7, "little") + before)

    return change


def flat_forever(content: bytes) -> bytes:
    """Return a tensor that repeats one number."""
    return claiming(10**12, b"\x85")(content).replace(b"K\x01\x85", b"K\x00\x85")


def doubled(times: int, each: bytes) -> bytes:
    """Return a pickle that puts the value on the stack into a pair of itself, again and again."""
    return b"".join(b"q\x01" + each for _ in range(times))


def safetensors(header: bytes, numbers: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + numbers


FILES = {
    "compressed": (lambda: rewritten(kind=zipfile.ZIP_DEFLATED), "it is compressed"),
    "a bomb of 50 MB": (
        lambda: rewritten(kind=zipfile.ZIP_DEFLATED, **{"archive/data/0": b"\0" * 50_000_000}),
        "it is compressed",
    ),
    "two entries of one name": (lambda: rewritten(**{"archive/DATA.pkl": b""}), "its entries claim more than"),
    "numbers of 72 PB": (lambda: rewritten(claiming(2**54, b"t")), "one of its tensors claims 72057594.0 GB that are"),
    "one number more": (lambda: rewritten(claiming(4, b"t")), "one of its tensors claims 16 B that are not in the"),
    "a shape of 10 TB": (lambda: rewritten(claiming(10**12, b"\x85")), "claims 1000000000000 numbers that are not"),
    "a shape of one more": (lambda: rewritten(claiming(4, b"\x85")), "claims 4 numbers that are not in the file"),
    "a number repeated": (lambda: rewritten(flat_forever), "claims 1000000000000 numbers that are not in the file"),
    "lists in lists": (pickled(b"]" * 100_000 + b"a" * 99_999), "nested as those of no network"),
    "tuples in tuples": (pickled(b")" + b"\x85" * 100_000), "nested as those of no network"),
    "two to the power of 30": (pickled(b")" + doubled(30, b"h\x01\x86")), "nested as those of no network"),
    "filled from the outside": (
        pickled(b"]q\x00]q\x01]q\x02h\x00h\x01ah\x01h\x02a"), "nested as those of no network",
    ),
    "a key that is hashed for hours": (pickled(b"}(K\x01K\x02" + b"\x86" + b"K\x01u"), "keys that are neither text"),
    "a long pickle": (pickled(b"]" + b"K\x01a" * (MAX_PICKLE // 3)), "longer than 4.0 MB"),
    "code": (pickled(b"}cposix\nsystem\nX\x02\x00\x00\x00id\x85Rs"), "it asks for posix.system, and only tensors and"),
    "code, by protocol 4": (lambda: pickle.dumps(Hostile(Path("x")), 4), "it asks for posix.mkdir, and only"),
    "code, by a class": (pickled(b"(icposix\nsystem\n"), "it asks for "),
    "code of TorchScript": (lambda: rewritten(**{"archive/constants.pkl": b"x"}), "a program of TorchScript"),
    "a whole network": (lambda: written(nn.Linear(2, 2)), "it asks for torch.nn.modules.linear.Linear"),
    "a whole network, legacy": (lambda: written(nn.Linear(2, 2), False), "asks for torch.nn.modules.linear.Linear"),
    "legacy numbers of 10 TB": (
        lambda: written({"a": NUMBERS}, False).replace(b"K\x03N", b"\x8a\x07" + (10**13).to_bytes(7, "little") + b"N"),
        "its tensors claim 40000.0 GB, and the file has",
    ),
    "legacy, cut": (lambda: written({"a": NUMBERS}, False)[:200], "its pickle is damaged"),
    "pickles in two folders": (lambda: rewritten(**{"other/data.pkl": b"."}), "an archive, but none of torch.save"),
    "another archive": (lambda: zipped({"photo.png": b""}), "it is an archive, but none of torch.save"),
    "text": (lambda: b"no weights at all\n" * 9, "it was not written by torch.save"),
    "nothing": (lambda: b"", "it was not written by torch.save"),
}  # fmt: skip


def zipped(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def reading(monkeypatch) -> list[str]:
    """Return a list of what torch was asked to read."""
    calls: list[str] = []
    monkeypatch.setattr(torch, "load", lambda *_, **__: calls.append("torch.load"))
    return calls


@pytest.mark.parametrize(("content", "reason"), FILES.values(), ids=FILES)
@pytest.mark.timeout(10)
def test_a_file_of_weights_is_refused_in_one_sentence_before_torch_reads_it(tmp_path, reading, content, reason):
    path = tmp_path / "weights.pt"
    path.write_bytes(content())
    with pytest.raises(UserError) as refused:
        read_state_dict(path)
    message = str(refused.value)
    assert message.startswith(f"{path} is no state dict: ")
    assert reason in message
    assert not [word for word in (*ADVICE, "\n") if word in message]
    assert reading == []


def store(folder: Path, payload: bytes) -> Path:
    """Put a payload where a checkpoint is, with a manifest that vouches for it."""
    save(folder, 5, {"network": {"a": NUMBERS}, "progress": {}, "best": None}, {"epoch": 1}, 1)
    path = folder / "step-000000005.pt"
    path.write_bytes(payload)
    said = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    values = json.loads(path.with_suffix(".json").read_text()) | said
    path.with_suffix(".json").write_text(json.dumps(values | {CHECKSUM: checksum(values)}))
    return path


@pytest.mark.parametrize(("content", "reason"), FILES.values(), ids=FILES)
@pytest.mark.timeout(10)
def test_a_checkpoint_is_refused_likewise(tmp_path, reading, content, reason):
    path = store(tmp_path / "checkpoints", content())
    with pytest.raises(UserError) as refused:
        load(path.parent, 5)
    assert str(refused.value).startswith(f"{path} is no checkpoint: ")
    assert reason in str(refused.value)
    assert not [word for word in (*ADVICE, "\n") if word in str(refused.value)]
    assert reading == []


@pytest.mark.parametrize("content", [{"network": {}}, [1], {"progress": {}}, NUMBERS], ids=str)
def test_content_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = store(tmp_path / "checkpoints", written(content))
    with pytest.raises(UserError, match=r"step-000000005\.pt is no checkpoint: it has no network"):
        load(path.parent, 5)


def test_a_checkpoint_longer_than_its_manifest_says_is_not_read(tmp_path, monkeypatch):
    path = store(tmp_path / "checkpoints", written({}))
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole, which takes no space on disk
    with pytest.raises(UserError, match="does not match its checksum"):
        load(path.parent, 5)


SAFETENSORS = {
    "a shape of 4 TB": safetensors(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,12]}}', b"0" * 12),
    "offsets beyond the end": safetensors(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', b"0" * 12),
    "one over the other": safetensors(
        b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
        b"0" * 8,
    ),
    "a header of 9 EB": safetensors(b"{}", length=2**63),
    "a header of 9 MB": safetensors(b" " * 9_000_000),
    "deep": safetensors(b'{"a":' * 100_000),
    "nothing": b"",
}


@pytest.mark.parametrize("content", SAFETENSORS.values(), ids=SAFETENSORS)
@pytest.mark.timeout(10)
def test_headers_of_safetensors_that_claim_too_much_are_refused(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_state_dict(path)
    assert str(refused.value).startswith(f"{path} is no state dict: ")
    assert "\n" not in str(refused.value)


def test_what_torch_refuses_nevertheless_is_said_without_its_advice(monkeypatch):
    def refuse(*_, **__):
        raise pickle.UnpicklingError("Weights only load failed. Re-running with weights_only set to False will do\n…")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(UserError, match=r"^it holds more than tensors and plain values$"):
        load_tensors(io.BytesIO(written({"a": NUMBERS})))


def test_a_bomb_takes_neither_memory_nor_time(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(rewritten(kind=zipfile.ZIP_DEFLATED, **{"archive/data/0": b"\0" * 100_000_000}))
    code = (
        "import resource, sys, time; from pathlib import Path\n"
        "from cnnbench.models.weights import read_state_dict\n"
        "before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()\n"
        "try: read_state_dict(Path(sys.argv[1]))\n"
        "except Exception as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.monotonic() - began)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    message, numbers = done.stdout.splitlines()
    assert "it may be a bomb" in message
    kilobytes, seconds = map(float, numbers.split())
    assert kilobytes < 20_000
    assert seconds < 2


# Weights to begin with, by a command ----------------------------------------------------------------------------------


def with_metadata(evil: Hostile) -> OrderedDict:
    values = OrderedDict(a=NUMBERS)
    values._metadata = {"version": evil}
    return values


HIDDEN = {
    "alone": lambda evil: evil,
    "among tensors": lambda evil: {"a": NUMBERS, "b": evil},
    "as a name": lambda evil: {evil: NUMBERS},
    "in a list": lambda evil: {"a": NUMBERS, "b": [1, (evil,)]},
    "in what a state dict says of itself": with_metadata,
}


WAYS = tuple(HIDDEN), ("zip", "legacy"), (".pt", ".pth", ".bin", ".safetensors")


@pytest.mark.parametrize(("hidden", "kind", "suffix"), everyday(product(*WAYS), diagonal(*WAYS)))
def test_weights_that_run_code_are_refused_by_the_command(cnnbench, tmp_path, outputs, hidden, kind, suffix):
    canary, path = tmp_path / "canary", tmp_path / f"weights{suffix}"
    path.write_bytes(written(HIDDEN[hidden](Hostile(canary)), kind == "zip"))
    outcome = cnnbench(*TINY, f"init.file={path}")
    assert not canary.exists()
    assert outcome.code == 2
    assert path.name in outcome.err
    assert ("it asks for posix.mkdir" in outcome.err) == (suffix != ".safetensors")
    assert not [word for word in ADVICE if word in outcome.err]
    assert not list(outputs.rglob("result.json"))


def test_a_pickle_next_to_the_one_that_counts_is_never_read(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "weights.pt"
    path.write_bytes(rewritten(**{"archive/extra/data.pkl": pickle.dumps(Hostile(canary))}))
    assert read_state_dict(path).keys() == {"a"}
    assert not canary.exists()
    pickle.loads(pickle.dumps(Hostile(canary)))
    assert canary.exists()


# What is no attack ----------------------------------------------------------------------------------------------------


def usual(zipped: bool) -> tuple[dict, object]:
    """Return what checkpoints hold of a network and an optimizer, and what is read of it."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network.register_buffer("same", torch.ones(1).expand(1000))
    optimizer = torch.optim.AdamW(network.parameters(), amsgrad=True)
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    content = {
        "network": network.state_dict(), "optimizer": optimizer.state_dict(), "best": network.state_dict(),
        "own": nn.Parameter(torch.ones(2)), "half": torch.ones(3, dtype=torch.bfloat16), "one": torch.tensor(3),
        "none": torch.zeros(0, 3), "part": torch.arange(10)[3:5], "turned": torch.ones(3, 4).t(),
        "plain": [1, -(2**40), 0.5, None, True, "ü", (1, (2,))],
    }  # fmt: skip
    return content, load_tensors(io.BytesIO(written(content, zipped)))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_networks_optimizers_and_plain_values_are_read(zipped):
    content, read = usual(zipped)
    assert read.keys() == content.keys()
    assert read["plain"] == content["plain"]
    for part in ("network", "best"):
        assert all(torch.equal(read[part][name], tensor) for name, tensor in content[part].items())
    assert all(torch.equal(read[name], content[name]) for name in ("own", "half", "one", "none", "part", "turned"))


def test_thirty_thousand_tensors_are_not_too_many():
    content = {f"layers.{number}.convolution.weight": NUMBERS[:1] for number in range(3_000)}
    payload = written(content)
    assert load_tensors(io.BytesIO(payload)).keys() == content.keys()
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        assert 10 * archive.getinfo("archive/data.pkl").file_size < MAX_PICKLE


def test_there_is_one_place_that_lets_torch_load():
    import cnnbench

    sources = Path(cnnbench.__file__).parent.rglob("*.py")
    loading = {path.name for path in sources if "torch.load(" in path.read_text(encoding="utf-8")}
    assert loading == {"tensor_files.py"}
    assert checkpoint.load_tensors is load_tensors

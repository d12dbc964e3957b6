"""Files of tensors, looked through before torch reads them: no program, no bomb, and nothing larger than the file.

`torch.load(weights_only=True)` runs nothing, but believes what a file says of itself: it unpacks what was compressed a
thousand to one, makes tensors of shapes that no memory holds, and hashes tuples for hours. So the pickle in a file is
followed here first, in the little language that state dicts need, and only counted: no object of it is built.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import torch

from cnnbench.errors import UserError, sized

MAX_PICKLE = 4_000_000  # bytes: some 30 000 tensors; the weights themselves lie outside of it
MAX_DEPTH, MAX_VALUES = 32, 1_000_000  # of nested values, where one that is named twice counts twice
MAX_EXPANDED = 100_000_000  # bytes, in addition to ten times the file, of tensors whose numbers are repeated
ZIP, LEGACY = b"PK\x03\x04", 0x1950A86A20F9469CFC6C

ITEM_SIZES = {
    f"torch {name}Storage": size
    for size, names in {
        1: "Bool Byte Char", 2: "Half BFloat16 Short", 4: "Float Int", 8: "Double Long ComplexFloat",
        16: "ComplexDouble",
    }.items()
    for name in names.split()
}  # fmt: skip
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
DICTIONARY = "collections OrderedDict"
DAMAGED = "its pickle is damaged"


class TensorFileError(UserError):
    """A file that is not read, and why: the end of a sentence that begins with its name."""


def load_tensors(file: IO[bytes]) -> Any:
    """Return what a file of torch.save holds: tensors on the CPU and plain values. Raises TensorFileError."""
    try:
        begin = file.read(len(ZIP))
        file.seek(0)
        (_check_zip if begin == ZIP else _check_legacy)(file)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    except TensorFileError:
        raise
    except Exception as error:
        # torch's own words go on with how to switch its safety off.
        reason = str(error).partition("\n")[0]
        if "weights_only" in reason or "Weights only" in reason:
            reason = "it holds more than tensors and plain values"
        raise TensorFileError(reason or type(error).__name__) from error


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file in the format of safetensors. Raises TensorFileError."""
    from safetensors.torch import load_file

    with path.open("rb") as file:
        if (length := int.from_bytes(file.read(8), "little")) > MAX_PICKLE:
            raise TensorFileError(f"its header claims {sized(length)}, and {sized(MAX_PICKLE)} are read at most")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except Exception as error:
        raise TensorFileError(str(error).partition("\n")[0]) from error
    return tensors


def _check_zip(file: IO[bytes]) -> None:
    """Check that nothing in an archive is compressed, and its pickle. The tensors are entries, named by their keys."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        size = file.seek(0, io.SEEK_END)
        names = [entry.filename.lower() for entry in entries]  # as torch looks them up
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
            raise TensorFileError("it is compressed, as torch.save never does: it may be a bomb")
        if len(set(names)) < len(names) or sum(entry.file_size for entry in entries) > size:
            raise TensorFileError("its entries claim more than there is in the file: it may be a bomb")
        top = entries[0].filename.partition("/")[0] if entries else ""
        if f"{top}/constants.pkl" in names:
            raise TensorFileError("it is a program of TorchScript; save its state_dict() alone")
        sizes = {entry.filename: entry.file_size for entry in entries}
        if f"{top}/data.pkl" not in sizes or not all(name.startswith(f"{top}/") for name in sizes):
            raise TensorFileError("it is an archive, but none of torch.save")
        if sizes[f"{top}/data.pkl"] > MAX_PICKLE:
            raise TensorFileError(_too_long())
        declared = _Pickle(size)
        declared.follow(io.BytesIO(archive.read(f"{top}/data.pkl")))
    for key, claimed in declared.storages.items():
        if claimed > sizes.get(f"{top}/data/{key}", 0):
            raise TensorFileError(f"one of its tensors claims {sized(claimed)} that are not in the file")


def _check_legacy(file: IO[bytes]) -> None:
    """Check a file as torch.save wrote them until 2020: a magic number, two facts, the pickle, keys, the tensors."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    pickles, magic = io.BytesIO(file.read(MAX_PICKLE)), None
    parts = _, _, declared, _ = [_Pickle(size) for _ in range(4)]
    try:
        magic = _Pickle(size).follow(pickles)
        for part in parts:
            part.follow(pickles)
    except ValueError as error:
        if magic == LEGACY:
            raise TensorFileError(_too_long() if size > MAX_PICKLE else DAMAGED) from error
    if magic != LEGACY:
        raise TensorFileError("it was not written by torch.save")
    if (claimed := sum(declared.storages.values())) > size:
        raise TensorFileError(f"its tensors claim {sized(claimed)}, and the file has {sized(size)}")


def _too_long() -> str:
    return f"what it says of its tensors is longer than {sized(MAX_PICKLE)}"


@dataclass(frozen=True)
class _Name:
    """A name that a pickle looks up."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The numbers of one or more tensors."""

    numbers: int
    item_size: int


class _Tensor:
    """A tensor, or a parameter."""


class _Values:
    """A tuple, list or dictionary. count, depth: of all that is in it. is_inner: it is in another one, and complete."""

    def __init__(self, items: Sequence[Any] = ()) -> None:
        self.items, self.count, self.depth, self.is_inner = items, 1, 1, False
        self.add(items)

    def add(self, items: Sequence[Any]) -> None:
        """Count what is put into it."""
        for item in items:
            if isinstance(item, _Values):
                item.is_inner = True
                self.count, self.depth = self.count + item.count, max(self.depth, item.depth + 1)
            elif isinstance(item, _Name | _Storage | _Mark):
                raise TensorFileError("it holds more than tensors and plain values")
            else:
                self.count += 1
        if self.is_inner or self.count > MAX_VALUES or self.depth > MAX_DEPTH:
            raise TensorFileError("its values are nested as those of no network: it may be a bomb")


class _Arguments(_Values):
    """A tuple, of any values: what a function is called with is one."""

    def add(self, items: Sequence[Any]) -> None:
        """Count those that are values."""
        super().add([item for item in items if not isinstance(item, _Name | _Storage)])


class _Mark:
    """Where the items of a tuple, list or dictionary begin on the stack."""


class _Pickle:
    """Follows a pickle. storages: what it claims of each, in bytes, by key. size: of the file."""

    def __init__(self, size: int) -> None:
        self.storages: dict[str, int] = {}
        self._room = 10 * size + MAX_EXPANDED
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def follow(self, file: IO[bytes]) -> Any:
        """Return what is left of it: a number or text, or what stands for anything else. Raises TensorFileError."""
        try:
            for operation, argument, _ in pickletools.genops(file):
                name = operation.name
                if name in PLAIN:
                    self._stack.append(PLAIN[name](argument))
                elif name in self.OPERATIONS:
                    self.OPERATIONS[name](self, argument)
                elif name == "INST":
                    self._look_up(argument)
                elif name not in ("PROTO", "FRAME", "STOP"):
                    raise TensorFileError(f"it holds more than tensors and plain values ({name})")
            return self._stack.pop()
        except (IndexError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(DAMAGED) from error

    def _look_up(self, argument: Any) -> None:
        if argument not in (TENSOR, PARAMETER, DICTIONARY, *ITEM_SIZES):
            raise TensorFileError(
                f"it asks for {argument.replace(' ', '.', 1)}, and only tensors and plain values are read, "
                "as in the state_dict() of a network"
            )
        self._stack.append(_Name(argument))

    def _look_up_on_stack(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._look_up(f"{module} {name}")

    def _call(self, _: Any) -> None:
        arguments, function = self._stack.pop().items, self._stack.pop().name
        if function == DICTIONARY and not arguments:
            self._stack.append(_Values())
        elif function == PARAMETER and isinstance(arguments[0], _Tensor):
            self._stack.append(arguments[0])
        elif function == TENSOR:
            self._stack.append(self._tensor(*arguments[:4]))
        else:
            raise TensorFileError(f"it calls {function.replace(' ', '.', 1)} with what that does not take")

    def _tensor(self, storage: _Storage, offset: int, shape: _Values, strides: _Values) -> _Tensor:
        sizes, steps = shape.items, strides.items
        if not all(type(number) is int and number >= 0 for number in (offset, *sizes, *steps)):
            raise TensorFileError("one of its tensors has a shape that is none")
        number = math.prod(sizes)
        last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True)) if number else 0
        self._room -= number * storage.item_size
        if (number and last >= storage.numbers) or self._room < 0:
            text = "x".join(map(str, sizes))
            raise TensorFileError(f"one of its tensors claims {text[:50]} numbers that are not in the file")
        return _Tensor()

    def _storage(self, _: Any) -> None:
        kind, name, key, _, numbers, *_ = self._stack.pop().items
        item_size = ITEM_SIZES[name.name]
        if kind != "storage" or type(key) is not str or type(numbers) is not int or numbers < 0:
            raise TensorFileError("one of its tensors has numbers of no kind")
        self.storages[key] = max(numbers * item_size, self.storages.get(key, 0))
        self._stack.append(_Storage(numbers, item_size))

    def _since_mark(self) -> list[Any]:
        items = []
        while not isinstance(item := self._stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _append(self, items: Sequence[Any]) -> None:
        self._stack[-1].add(items)

    def _set(self, pairs: Sequence[Any]) -> None:
        # The hash of a tuple of tuples can take for ever.
        if not all(key is None or isinstance(key, str | int | float) for key in pairs[::2]):
            raise TensorFileError("it has keys that are neither text nor numbers")
        self._stack[-1].add(pairs)

    def _put(self, number: int | None) -> None:
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    OPERATIONS: ClassVar[Mapping[str, Callable[["_Pickle", Any], None]]] = {
        "GLOBAL": _look_up,
        "STACK_GLOBAL": _look_up_on_stack,
        "MARK": lambda self, _: self._stack.append(_Mark()),
        "TUPLE": lambda self, _: self._stack.append(_Arguments(self._since_mark())),
        "TUPLE1": lambda self, _: self._stack.append(_Arguments([self._stack.pop()])),
        "TUPLE2": lambda self, _: self._stack.append(_Arguments([self._stack.pop(-2), self._stack.pop()])),
        "TUPLE3": lambda self, _: self._stack.append(
            _Arguments([self._stack.pop(-3), self._stack.pop(-2), self._stack.pop()])
        ),
        "APPEND": lambda self, _: self._append([self._stack.pop()]),
        "APPENDS": lambda self, _: self._append(self._since_mark()),
        "SETITEM": lambda self, _: self._set([self._stack.pop(-2), self._stack.pop()]),
        "SETITEMS": lambda self, _: self._set(self._since_mark()),
        "BUILD": lambda self, _: self._append([self._stack.pop()]),
        "REDUCE": _call,
        "BINPERSID": _storage,
        "MEMOIZE": _put,
        **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _put),
        **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda self, number: self._stack.append(self._memo[number])),
    }


def _itself(argument: Any) -> Any:
    return argument


PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "NONE": _itself,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: _Arguments(),
    "EMPTY_LIST": lambda _: _Values(),
    "EMPTY_DICT": lambda _: _Values(),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _itself),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING", "BINSTRING"), _itself),
}

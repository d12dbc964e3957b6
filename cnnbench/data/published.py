"""Published sets of photographs: what is known of them, whether they are there, and how they get there."""

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp

from tqdm import tqdm

from cnnbench.data.archives import UNREADABLE, Member, copy_out, is_archive, members
from cnnbench.data.decode import SUFFIXES
from cnnbench.data.files import scratch_folder
from cnnbench.data.image_files import first_names
from cnnbench.errors import NotWrittenError, UserError, grouped, listed, sized, writing_to
from cnnbench.registry import DATASETS


@dataclass(frozen=True)
class PublishedPhotographs:
    """A set of which no checksums are known, but the classes, and how many images there are.

    folder: where it is looked for, below that of all data sets. source: the archive, and the page that has it.
    archives: how the names of archives begin. in_names: whether a class may be the first word of a file's name.
    terms: its licence and how it is cited, as `DATASETS.register` takes them.
    """

    title: str
    folder: str
    source: str
    archives: tuple[str, ...]
    classes: tuple[str, ...]
    images: int
    in_names: bool = False
    terms: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _by_name(self) -> dict[str, str]:
        return {name.casefold(): name for name in self.classes}

    def place_of(self, path: PurePosixPath) -> tuple[PurePosixPath, str] | None:
        """Return the folder of the set that an image belongs to by its path, and its class; None: to none."""
        if path.suffix.lower() not in SUFFIXES:
            return None
        above = self._by_name.get(path.parent.name.casefold())
        if above is not None:
            return path.parent.parent, above
        first_word = re.sub(r"[^A-Za-z].*", "", path.stem).casefold() if self.in_names else ""
        return (path.parent, self._by_name[first_word]) if first_word in self._by_name else None

    def counts(self, folder: Path) -> Counter[str]:
        """Return how many images of each class are in a folder; none where it is not there."""
        places = (self.place_of(member.path) for member in members(folder)) if folder.is_dir() else ()
        return Counter(place[1] for place in places if place is not None)

    def is_complete(self, counts: Counter[str]) -> bool:
        """Tell whether there are as many images and classes as were published."""
        return (counts.total(), len(counts)) == (self.images, len(self.classes))

    def compared(self, counts: Counter[str]) -> str:
        """Return how many images and classes were found, next to what was published."""
        number, classes = counts.total(), len(counts)
        found = f"{grouped(number)} image{'s' * (number != 1)} in {classes} class{'es' * (classes != 1)}"
        if self.is_complete(counts):
            return f"{found}, as published"
        missing = [name for name in self.classes if name not in counts]
        without = f"; without {first_names(map(repr, missing))}" if missing else ""
        return f"{found}{without}; published are {grouped(self.images)} in {len(self.classes)}"


CALTECH101 = PublishedPhotographs(
    "Caltech101",
    "caltech101/101_ObjectCategories",
    "caltech-101.zip of https://data.caltech.edu/records/mzrjq-6wc02",
    ("caltech-101", "caltech101", "101_ObjectCategories"),
    (
        "BACKGROUND_Google", "Faces", "Faces_easy", "Leopards", "Motorbikes", "accordion", "airplanes",
        "anchor", "ant", "barrel", "bass", "beaver", "binocular", "bonsai", "brain", "brontosaurus", "buddha",
        "butterfly", "camera", "cannon", "car_side", "ceiling_fan", "cellphone", "chair", "chandelier",
        "cougar_body", "cougar_face", "crab", "crayfish", "crocodile", "crocodile_head", "cup", "dalmatian",
        "dollar_bill", "dolphin", "dragonfly", "electric_guitar", "elephant", "emu", "euphonium", "ewer",
        "ferry", "flamingo", "flamingo_head", "garfield", "gerenuk", "gramophone", "grand_piano", "hawksbill",
        "headphone", "hedgehog", "helicopter", "ibis", "inline_skate", "joshua_tree", "kangaroo", "ketch",
        "lamp", "laptop", "llama", "lobster", "lotus", "mandolin", "mayfly", "menorah", "metronome",
        "minaret", "nautilus", "octopus", "okapi", "pagoda", "panda", "pigeon", "pizza", "platypus",
        "pyramid", "revolver", "rhino", "rooster", "saxophone", "schooner", "scissors", "scorpion",
        "sea_horse", "snoopy", "soccer_ball", "stapler", "starfish", "stegosaurus", "stop_sign", "strawberry",
        "sunflower", "tick", "trilobite", "umbrella", "watch", "water_lilly", "wheelchair", "wild_cat",
        "windsor_chair", "wrench", "yin_yang",
    ),
    9144,
    terms={
        "licence": "CC BY 4.0",
        "citation": "Fei-Fei, Fergus, Perona 2004, Learning generative visual models from few training examples",
    },
)  # fmt: skip
EIGHT_SCENES = PublishedPhotographs(
    "eight scenes",
    "spatial_envelope_256x256_static_8outdoorcategories",
    "spatial_envelope_256x256_static_8outdoorcategories.zip of http://people.csail.mit.edu/torralba/code/spatialenvelope",
    ("spatial_envelope", "eight_scenes"),
    ("coast", "forest", "highway", "insidecity", "mountain", "opencountry", "street", "tallbuilding"),
    2688,
    in_names=True,
    terms={
        "licence": "none stated by the authors",
        "citation": "Oliva, Torralba 2001, Modeling the shape of the scene, doi:10.1023/A:1011139631724",
    },
)
CATS_DOGS = PublishedPhotographs(
    "cats and dogs",
    "PetImages",
    "train.zip of https://www.kaggle.com/c/dogs-vs-cats, or kagglecatsanddogs_5340.zip of "
    "https://www.microsoft.com/en-us/download/details.aspx?id=54765",
    ("kagglecatsanddogs", "dogs-vs-cats", "train", "PetImages", "cats_dogs"),
    ("cat", "dog"),
    25000,
    in_names=True,
    terms={
        "licence": "that of its download: the rules of Kaggle's competition, or Microsoft's terms",
        "citation": "Elson, Douceur, Howell, Saul 2007, Asirra, ACM CCS",
    },
)


def published_of(name: str) -> PublishedPhotographs | None:
    """Return what is known of a published set of photographs, or None for any other data set."""
    published = DATASETS[name].facts.get("published")
    assert published is None or isinstance(published, PublishedPhotographs)
    return published


@dataclass(frozen=True)
class _Found:
    """A set that was found. place: the folder or archive to read; base: the set's folder in it; origin: as shown."""

    place: Path
    base: PurePosixPath
    origin: str
    classes: dict[PurePosixPath, str]
    size: int

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.classes.values())


def import_photographs(published: PublishedPhotographs, origin: Path, root: Path) -> list[str]:
    """Copy a published set from a folder or an archive to where it is looked for; return lines on what was done.

    Searched is everything below `origin`, archives by their names, and the folder above where `origin` is a class.
    What is there already stays as it is. The set appears under its name when all of it has been copied.
    Raises UserError where no set is found, or several that differ; then nothing has been copied.
    """
    if not origin.exists():
        raise UserError(f"{origin}: there is no such folder or file.")
    target = root / published.folder
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        there = published.compared(published.counts(target))
        return [f"is there already, left as it is: {there}", "to import it again, move that folder away first"]
    with scratch_folder(root) as scratch:
        unreadable: list[str] = []
        found = list(_sets_in(published, origin, str(origin), scratch, unreadable))
        if not found and published.place_of(PurePosixPath(origin.resolve().name, "x.jpg")) is not None:
            above = origin.resolve().parent
            found = [one for one in _sets_in(published, above, str(above), None, []) if one.base == PurePosixPath()]
        chosen = _choose(published, found, unreadable, origin)
        try:
            _copy(chosen, scratch / "set")
            with writing_to(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                (scratch / "set").rename(target)  # last, so that a folder of this name is complete
        except NotWrittenError:
            raise
        except UNREADABLE as error:
            raise UserError(f"{chosen.origin}: {error}; nothing was brought to {target}.") from error
    return [f"copied from {chosen.origin}", published.compared(chosen.counts)]


def _sets_in(
    published: PublishedPhotographs, place: Path, shown: str, scratch: Path | None, unreadable: list[str]
) -> Iterator[_Found]:
    """Yield the sets in a folder or an archive, and in archives within it: at least two of the classes side by side.

    scratch: where archives in an archive are unpacked to; None: archives are not looked into. unreadable: gets a line
    for each that cannot be read.
    """
    classes: dict[PurePosixPath, dict[PurePosixPath, str]] = {}
    sizes: Counter[PurePosixPath] = Counter()
    inner: list[Path] = []
    try:
        for member in members(place):
            found = published.place_of(member.path)
            if found is not None:
                classes.setdefault(found[0], {})[member.path] = found[1]
                sizes[found[0]] += member.size
            elif scratch is not None and is_archive(member.path) and member.path.name.startswith(published.archives):
                inner.append(place / member.path)
                if not place.is_dir():
                    with writing_to(scratch):
                        inner[-1] = Path(mkdtemp(dir=scratch), member.path.name)
                    _write(member, inner[-1])
    except UserError as error:  # hostile or huge; another one may do
        unreadable.append(str(error))
        return
    except NotWrittenError:
        raise
    except UNREADABLE as error:
        unreadable.append(f"{shown} cannot be read: {error}")
        return
    for base, of_base in classes.items():
        if len(set(of_base.values())) > 1:
            yield _Found(place, base, str(PurePosixPath(shown) / base), of_base, sizes[base])
    for archive in inner:  # those in an archive are the last
        within = archive if place.is_dir() else PurePosixPath(shown, archive.name)
        yield from _sets_in(published, archive, str(within), scratch if place.is_dir() else None, unreadable)


def _choose(
    published: PublishedPhotographs, found: Sequence[_Found], unreadable: Iterable[str], origin: Path
) -> _Found:
    """Return the set to bring: one that is as published, or else the only one. Raises UserError where there is none."""
    numbers = {(one.counts.total(), len(one.counts)) for one in found}
    complete = [one for one in found if published.is_complete(one.counts)]
    if complete or len(numbers) == 1:
        return (complete or found)[0]
    if found:
        ways = [f"{one.origin}: {published.compared(one.counts)}" for one in found]
        heading, hint = (
            f"{origin} has several sets that may be {published.title}; nothing was copied:",
            "name one of them",
        )
    else:
        ways = [
            f"looked for: folders {listed(published.classes[:3])}, … with images; "
            f"archives whose names begin with {listed(published.archives)}"
        ]
        heading = f"{origin} has no {published.title}; nothing was copied:"
        hint = f"the original is {published.source}"
    raise UserError("\n  ".join([heading, *ways, *unreadable, hint]))


def _copy(found: _Found, folder: Path) -> None:
    """Write the images of a set to a new folder. Raises one of UNREADABLE."""
    free = shutil.disk_usage(folder.parent).free
    if found.size > free:
        raise OSError(f"{sized(found.size)} are needed, and {sized(free)} free; data.root=FOLDER names another place")
    every = tqdm(members(found.place), "copying images", leave=False, disable=None)
    for member in (member for member in every if member.path in found.classes):
        _write(member, folder / member.path.relative_to(found.base))


def _write(member: Member, path: Path) -> None:
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source:
        copy_out(source, path)
    if path.stat().st_size != member.size:
        raise OSError(f"{member.path} is cut short")

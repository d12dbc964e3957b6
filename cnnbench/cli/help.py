"""`cnnbench help`: pages of documentation, and the overview of `cnnbench --help`."""

import re
from argparse import Namespace
from collections.abc import Iterator
from textwrap import wrap

from cnnbench.cli.catalog import PACKAGE, all_keys, all_options
from cnnbench.cli.parse import VERBS, WIDTH, Argument, Verb, columns, say, verb_named
from cnnbench.errors import UserError, did_you_mean

DOCS = PACKAGE / "docs"
OVERVIEW = """\
cnnbench trains convolutional networks, and writes each run to a folder with
all you need to understand, repeat and continue it.

usage: cnnbench [train] [GROUP=OPTION ...] [KEY=VALUE ...]
       cnnbench COMMAND ...

  cnnbench                                     LeNet on digits, in seconds
  cnnbench model=minialexnet_v4 data=cifar10 epochs=30
  cnnbench -m model=lenet,mlp seed=0,1,2       a sweep: six runs
  cnnbench list                                list all runs
  cnnbench resume last epochs=80               train a run for longer
  cnnbench report outputs/digits               compare runs on a page

The same command again continues a stopped run, and shows the result of a
finished one. Runs are in ./outputs, or $CNNBENCH_OUTPUTS; data sets in the
cache folder of the user, or $CNNBENCH_DATA.

Commands (cnnbench COMMAND --help says more):
{verbs}

Often typed (cnnbench train --help shows all options and settings):
  model=resnet20_cifar        data=cifar10          epochs=30    batch_size=128
  optimizer=adam              optimizer.lr=0.001    seed=1       max_minutes=20
  regularization.dropout=0.5  augmentation=flip     device=cpu   dry_run=true

Exit codes: 0 finished, 1 failed, 2 a mistake in what was typed, 75 stopped by a
signal or max_minutes, 130 by Ctrl-C. After 75 or 130, the same command goes on.
"""
ABOUT = """\
Prints a page of documentation.

  cnnbench help                  the list of pages
  cnnbench help settings         every setting, with its default
  cnnbench help evaluate         as cnnbench evaluate --help
"""


ABOUT_PAGES = {
    "runs": "sweeps multirun seeds grid jobs comparison statistics loggers tensorboard wandb mlflow name notes tags",
    "cluster": "slurm engines gpus workers",
    "extending": "plugins custom own model network preset task register",
    "training": "optimizers schedules lr loss regularization freeze pretrained weights transfer dry_run lr_find",
    "data": "augmentation photographs images split subset image_folder download",
    "evaluation": "metrics calibration grad-cam onnx confusion",
    "reliability": "errors exit codes signals crash stopped interrupted paused",
    "scale": "disk space index",
    "python": "api notebook jupyter",
    "faq": "questions problems troubleshooting",
    "settings": "configuration options keys yaml",
}
"""Words that are looked up, by the page that says most about them."""


def overview() -> str:
    """Return what `cnnbench --help` prints."""
    return OVERVIEW.format(verbs="\n".join(columns(tuple(VERBS.items()), 15)))


def topics() -> dict[str, str]:
    """Return the pages, files of `docs/`, with the first sentence of each; the tutorial is first."""
    pages = sorted(DOCS.glob("*.md"), key=lambda path: (path.stem != "tutorial", path.stem))
    return {path.stem: _first_sentence(path.read_text(encoding="utf-8")) for path in pages}


def page(topic: str) -> str:
    """Return a page. Raises UserError where there is none of that name."""
    if topic in VERBS and topic not in topics():
        return verb_named(topic).help_text()
    if topic not in topics():
        meant = [page for page, words in ABOUT_PAGES.items() if _stems(topic) & _stems(words)]
        hint = "".join(f"; type cnnbench help {page}." for page in meant[:1])
        if not hint and any(f".{key}".endswith(f".{topic}") for key in all_keys()):
            hint = "; type cnnbench help settings, which has it."
        groups = [group for group, options in all_options().items() if topic in options]
        hint = hint or "".join(f"; type cnnbench options {group} {topic}." for group in groups[:1])
        hint = hint or did_you_mean(topic, [*topics(), *VERBS]) or ";"
        raise UserError(f"there is no page '{topic}'{hint} cnnbench help lists them.")
    return "\n".join(in_columns((DOCS / f"{topic}.md").read_text(encoding="utf-8")))


def _stems(words: str) -> set[str]:
    return {word.removesuffix("s") for word in words.lower().split()}


def _first_sentence(markdown: str) -> str:
    text = " ".join(markdown.split("\n\n")[1].split())
    return re.split(r"(?<=[.:]) ", text, maxsplit=1)[0].rstrip(".:")


def in_columns(markdown: str) -> Iterator[str]:
    """Yield the lines of a page as a terminal shows them: paragraphs wrapped, a row of a table as a small list."""
    for number, part in enumerate(re.split(r"(?ms)^(```.*?^```)$", markdown)):
        is_code = number % 2 == 1
        for block in [part] if is_code else _plain(part).split("\n\n"):
            if is_code:
                yield from block.splitlines()
            elif block.startswith("|"):
                yield from _table(block)
            elif block:
                yield from _paragraph(block)
            if block:
                yield ""


def _plain(markdown: str) -> str:
    """Return text with the words of pictures and links alone."""
    text = re.sub(r"(?m)^!\[(.*)\]\(.*\)$", r"(picture: \1)", markdown)
    return re.sub(r"\[([^]\n]*)\]\([^)]*\)", r"\1", text).strip("\n")


def _paragraph(block: str) -> Iterator[str]:
    for item in re.split(r"\n(?=[-*] |\d+\. )", block):
        mark = re.match(r"[-*] |\d+\. ", item)
        yield from wrap(" ".join(item.split()), WIDTH, subsequent_indent=" " * (mark.end() if mark else 0))


def _table(block: str) -> Iterator[str]:
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in block.splitlines()]
    head, _, *rest = [[cell.strip().replace("\\|", "|") for cell in row] for row in rows]
    for row in rest:
        yield from wrap(row[0], WIDTH)
        for title, cell in zip(head[1:], row[1:], strict=True):
            text = f"{title}: {cell}" if len(head) > 2 and cell else cell
            yield from wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")


def _run(flags: Namespace) -> None:
    if flags.topic:
        say(page(" ".join(flags.topic)).rstrip("\n"))
        return
    say("Pages, each printed by cnnbench help PAGE:", "")
    say(*columns(tuple(topics().items())))
    say("", "cnnbench COMMAND --help says what a command does.")


def _complete() -> list[str]:
    return [*topics(), *VERBS]


VERB = Verb(
    "help",
    ABOUT,
    (Argument("topic", nargs="*", metavar="PAGE", complete=_complete, help="a page, or a command"),),
    _run,
    takes_plugins=False,
)

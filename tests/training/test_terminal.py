"""A page is a link where the terminal knows links, and a path elsewhere; the browser opens it where that is asked."""

import sys
import webbrowser
from pathlib import Path

import pytest

from cnnbench.training import terminal
from cnnbench.training.console import show_page
from tests.conftest import TINY, latest, only_run
from tests.support.mistakes import mistakes_in
from tests.support.run_folders import write_dropout_runs

REPORTED = tuple(latest((*TINY, "epochs=1", "report=true")))
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SSH_CONNECTION")
LINKS = ("FORCE_HYPERLINK", "NO_COLOR", "WT_SESSION")

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def on_terminal(monkeypatch):
    """A terminal that knows links."""
    for name in LINKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Return what a browser on a display was asked to open."""
    pages: list[str] = []
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda url: pages.append(url) or True)
    return pages


def test_a_terminal_that_knows_links_gets_one_around_the_same_text(on_terminal, tmp_path):
    page = tmp_path / "here" / "my report.html"
    assert terminal.linked(page) == f"\x1b]8;;{page.as_uri()}\x1b\\my report.html\x1b]8;;\x1b\\"
    assert terminal.linked(Path("my report.html"), "text") == f"\x1b]8;;{page.as_uri()}\x1b\\text\x1b]8;;\x1b\\"
    assert "%20" in page.as_uri()


@pytest.mark.parametrize(
    ("name", "value", "is_linked"),
    [
        ("TERM", "dumb", False),
        ("TERM", "linux", False),
        ("TERM", "", False),
        ("TERM", "xterm-kitty", True),
        ("NO_COLOR", "1", False),
        ("FORCE_HYPERLINK", "0", False),
    ],
)
def test_links_are_for_terminals_that_show_them(name, value, is_linked, on_terminal, monkeypatch):
    monkeypatch.setenv(name, value)
    assert terminal.linked(Path("a.html")).startswith("\x1b]8;;file:///") == is_linked
    if not is_linked:
        assert terminal.linked(Path("a.html")) == "a.html"


def test_a_pipe_has_the_path_and_nothing_else_unless_links_are_forced(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    assert terminal.linked(Path("a.html")) == "a.html"
    monkeypatch.setenv("FORCE_HYPERLINK", "1")
    assert terminal.linked(Path("a.html")) != "a.html"
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.delenv("FORCE_HYPERLINK")
    assert terminal.linked(Path("a.html")) == "a.html"


def test_commands_end_with_a_link_to_their_page(outputs, monkeypatch, command_of):
    monkeypatch.setenv("FORCE_HYPERLINK", "1")
    write_dropout_runs(outputs)
    page = outputs / "reports" / "synthetic" / "report.html"
    done = command_of("report", str(outputs / "synthetic"))
    assert f"  page: \x1b]8;;{page.as_uri()}\x1b\\" in done.out
    monkeypatch.setenv("FORCE_HYPERLINK", "0")
    assert command_of("report", str(outputs / "synthetic")).out.endswith(f"  page: {page}\n")


def test_a_training_opens_its_page_where_that_is_asked_for(outputs, cnnbench, opened, monkeypatch):
    plain = cnnbench(*REPORTED)
    run = only_run(outputs)
    assert opened == []
    done = cnnbench(*REPORTED, "open=true")  # it is finished
    assert only_run(outputs) == run
    assert opened == [(run / "report.html").as_uri()]
    assert plain.out.splitlines()[-1] == done.out.splitlines()[-1] == f"  page        {run / 'report.html'}"
    again = cnnbench(*REPORTED, "open=true", "rerun=true")
    assert again.code == 0
    assert opened[1:] == [(run.with_name(f"{run.name}-r2") / "report.html").as_uri()]
    (run / "report.html").unlink()
    monkeypatch.delenv("DISPLAY")
    assert "note: the page was not opened: there is no display here" in cnnbench(f"resume={run}", "open=true").out
    assert (run / "report.html").is_file(), "what is not there is written again"


def test_a_sweep_opens_its_comparison_and_none_of_its_pages(outputs, opened, cnnbench):
    for seed in range(2):
        cnnbench(*REPORTED, f"seed={seed}")
    done = cnnbench("-m", *REPORTED, "open=true", "seed=0,1")  # they are finished
    assert done.code == 0
    (page,) = (outputs / "sweeps").glob("*/report.html")
    assert opened == [page.as_uri()]
    assert f"  page        {page}" in done.out


def test_a_report_opens_its_page_where_that_is_asked_for(outputs, opened, command_of):
    write_dropout_runs(outputs)
    assert command_of("report", str(outputs)).code == 0
    assert opened == []
    assert command_of("report", str(outputs), "--open").code == 0
    assert opened == [(outputs / "reports" / "outputs" / "report.html").as_uri()]


@pytest.mark.parametrize("error", [webbrowser.Error("could not locate runnable browser"), OSError("no"), ValueError()])
def test_a_browser_that_fails_fails_nothing(error, opened, monkeypatch, capsys):
    def fail(url):
        raise error

    monkeypatch.setattr(webbrowser, "open", fail)
    show_page(Path("report.html"), opens=True)
    note = f"note: the page was not opened: {type(error).__name__}: {error}"
    assert capsys.readouterr().out == f"  page        report.html\n  {note}\n"


def test_no_browser_is_started_where_nobody_would_see_it(opened, monkeypatch):
    page = Path("report.html")
    assert terminal.opened_in_browser(page) == ""
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert "no browser was found" in terminal.opened_in_browser(page)
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    opened.clear()
    monkeypatch.delenv("DISPLAY")
    assert "there is no display here" in terminal.opened_in_browser(page)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("SSH_CONNECTION", "1")
    assert "there is no display here" in terminal.opened_in_browser(page)
    assert opened == []
    monkeypatch.setenv("BROWSER", "code")
    assert terminal.opened_in_browser(page) == ""
    monkeypatch.delenv("BROWSER")
    monkeypatch.delenv("SSH_CONNECTION")
    assert terminal.opened_in_browser(page) == ""
    assert len(opened) == 2


def test_a_page_that_is_not_written_cannot_be_opened(composer):
    problem = {"open=true": "has no page to open with report=false"}
    assert mistakes_in(composer, "open=true", "report=false") == problem

"""The HTML report in a real headless Chromium: drawn, filtered, walked through by keyboard, printed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import browsing
import pytest

from glimmer_store.report_html import page
from glimmer_store.status import Cell, Report

WIDTHS = ((390, 844), (820, 1180), (1440, 900))
CONTRASTS = """
(() => {
  const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const colour = text => text.match(/[\\d.]+/g).map(Number);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), seen = new Map();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || /SCRIPT/.test(element.tagName) || element.disabled) continue;
    const [one, other] = [light(colour(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05), name = `${element.tagName}.${element.className}`;
    seen.set(name, Math.min(ratio, seen.get(name) ?? 99));
  }
  return [...seen];
})()
"""


CUT_OFF = """
(() => {
  const right = document.getElementById('places').parentElement.getBoundingClientRect().right;
  const cells = [...document.querySelectorAll('#places tbody td.number')];
  const hidden = box => box.width === 0 || box.right > right;
  return cells.filter(cell => hidden(cell.getBoundingClientRect())).map(cell => cell.textContent);
})()
"""


@pytest.fixture(scope="module")
def report() -> Report:
    return browsing.large_report()


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return page(report)


@pytest.fixture(scope="module")
def opened(html: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[browsing.Page, Path]]:
    if browsing.chromium() is None:
        pytest.skip("no Chromium: apt install chromium-headless-shell")
    folder = tmp_path_factory.mktemp("browser")
    file = folder / "report.html"
    file.write_text(html, encoding="utf-8")
    with browsing.browser(folder) as chromium:
        yield chromium, file


@pytest.fixture
def shown(opened: tuple[browsing.Page, Path]) -> browsing.Page:
    chromium, file = opened
    chromium.look(width=1440)
    chromium.open(file)
    return chromium


class _Reader(HTMLParser):
    """Tags, references, and the text of the table's first column."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data-src")]
        self.rows += tag == "tr"


def test_ten_thousand_objects_in_eight_places_are_less_than_three_megabytes(report: Report, html: str) -> None:
    assert len(report.objects) == 10_000
    assert len(report.places) == 8
    assert len(html.encode()) < 3_000_000


def test_the_file_names_nothing_outside_itself(html: str) -> None:
    reader = _Reader()
    reader.feed(html)

    assert reader.references == ["#objects"]
    assert "url(" not in html
    assert "@import" not in html


def test_without_javascript_the_figures_and_the_first_objects_are_there(report: Report, html: str) -> None:
    before = html[: html.index("<script")]
    reader = _Reader()
    reader.feed(before)

    assert reader.rows == 1 + len(report.places) + 2 + 50
    for name, count in report.tiles.items():
        assert re.search(rf'data-filter="{name}"[^>]*><b>{count:,}</b>', before)
    for place in report.places:
        assert place.uuid in before


def test_names_cannot_become_markup(report: Report) -> None:
    evil = "</script><img src=x onerror=alert(1)>&\udcff"
    (entry,) = (e for e in report.objects[:1])
    node = type(entry.node)(evil, "dataset", Path(evil), Path(evil), entry.node.key, entry.node.record)
    made = type(entry)(node, 3, cells=entry.cells)

    evil_report = Report(evil, report.places, (made,))
    for written in (page(evil_report), evil_report._repr_html_()):
        assert "<img" not in written
        written.encode()


@pytest.mark.optional
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_it_fits_every_width_and_every_text_can_be_read(
    opened: tuple[browsing.Page, Path], width: int, height: int, dark: bool
) -> None:
    chromium, file = opened
    chromium.look(width=width, height=height, dark=dark)
    chromium.open(file)
    chromium.ask("document.querySelector('tr.row').click()")  # details and commands count as well

    assert chromium.ask("document.documentElement.scrollWidth") <= width
    assert chromium.ask("document.getElementById('places').parentElement.scrollWidth") <= width
    assert chromium.ask(CUT_OFF) == [], "figures of a place that nobody sees"
    contrasts = chromium.ask(CONTRASTS)
    assert len(contrasts) > 15
    assert [(name, ratio) for name, ratio in contrasts if ratio < 4.5] == []
    assert all(url.startswith("file:") for url in chromium.requested)
    folder = os.environ.get("REPORT_PICTURES")  # where docs/report.md has its pictures from
    if folder:
        chromium.open(file)
        Path(folder, f"report-{width}-{'dark' if dark else 'light'}.png").write_bytes(chromium.picture())


@pytest.mark.optional
def test_every_row_says_what_the_report_says(opened: tuple[browsing.Page, Path], tmp_path: Path) -> None:
    report, shown = browsing.large_report(950, trouble=0.3), opened[0]
    file = tmp_path / "report.html"
    file.write_text(page(report), encoding="utf-8")
    shown.open(file)
    by_name = {entry.name: entry for entry in report.objects}
    seen = {}
    collect = """[...document.querySelectorAll('tr.row')].map(row => [
        row.children[0].textContent, row.children[2].textContent,
        [...row.querySelectorAll('.chip')].map(chip => chip.textContent).join('')])"""
    for _ in range(10):
        seen |= {name: (copies, cells) for name, copies, cells in shown.ask(collect)}
        shown.ask("document.getElementById('next').click()")

    assert seen.keys() == by_name.keys()
    for name, (copies, cells) in seen.items():
        entry = by_name[name]
        assert copies.split()[0] == f"{len(entry.live)}/{entry.needed}"
        assert cells == "".join(cell.symbol for cell in entry.cells)


@pytest.mark.optional
def test_tiles_filter_and_the_search_finds(shown: browsing.Page, report: Report) -> None:
    for name, count in report.tiles.items():
        shown.ask(f"document.querySelector('[data-filter=\"{name}\"]').click()")
        assert shown.ask("document.getElementById('status').textContent").endswith(f" of {count:,}")
        assert shown.ask("document.querySelectorAll('[aria-pressed=true]').length") == 1
        shown.ask(f"document.querySelector('[data-filter=\"{name}\"]').click()")
    wanted = report.objects[4321]
    shown.press("/")
    for letter in str(wanted.node.key)[-30:]:
        shown.press(letter)
    assert shown.ask("[...document.querySelectorAll('tr.row th')].map(e => e.textContent)") == [wanted.name]


@pytest.mark.optional
def test_the_table_can_be_walked_by_keyboard(shown: browsing.Page, report: Report) -> None:
    shown.press("Tab")
    assert shown.ask("document.activeElement.textContent") == "Skip to the objects"
    shown.press("Enter")
    shown.press("Tab", "Tab", "Tab", "Tab")  # search, class, Next (Previous is off), the table
    where = "[document.activeElement.parentNode.getAttribute('aria-rowindex'), document.activeElement.cellIndex]"

    shown.press("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight")
    assert shown.ask(where) == ["4", 3]
    assert shown.ask("document.activeElement.getAttribute('aria-label')").startswith("vault-basement: ")
    assert shown.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    shown.press("End")
    assert shown.ask(where) == ["4", 10]
    shown.press("Home", "Enter")
    assert shown.ask("document.activeElement.parentNode.getAttribute('aria-expanded')") == "true"
    assert "glimmer-store verify --repair -C" in shown.ask("document.querySelector('.detail code').textContent")
    shown.press("Escape", "PageDown")
    assert shown.ask(where) == ["103", 0]
    shown.press("ArrowUp")
    assert shown.ask(where) == ["102", 0]


@pytest.mark.optional
def test_an_object_shows_its_key_its_history_and_the_command_that_mends_it(
    shown: browsing.Page, report: Report
) -> None:
    entry = next(entry for entry in report.objects if entry.findings and entry.findings[0].kind == "copies")
    shown.ask(f"document.getElementById('search').value = {json.dumps(str(entry.node.key))}")
    shown.ask("document.getElementById('search').dispatchEvent(new Event('input'))")
    shown.ask("document.querySelector('tr.row').click()")

    told = shown.ask("document.querySelector('.detail').textContent")
    commands = shown.ask("[...document.querySelectorAll('.detail code')].map(e => e.textContent)")
    assert str(entry.node.key) in told
    assert f"{entry.history[0].when:%Y-%m-%d %H:%M} UTC" in told
    assert commands == [found.command for found in entry.findings]


@pytest.mark.optional
def test_it_prints_what_is_filtered(shown: browsing.Page, report: Report) -> None:
    shown.ask("document.querySelector('[data-filter=\"unreachable\"]').click()")
    printed = shown.printed()

    assert printed.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 20


def test_every_state_has_its_own_symbol_and_meaning() -> None:
    assert len({cell.symbol for cell in Cell}) == len({cell.meaning for cell in Cell}) == len(Cell)


def test_a_notebook_shows_the_figures_and_what_needs_something_first(report: Report) -> None:
    shown = report._repr_html_()

    assert f"<b>{report.tiles['at risk']}</b> at risk" in shown
    assert shown.index(report.under_replicated[0].name) > 0
    assert "<script" not in shown
    assert len(shown) < 30_000

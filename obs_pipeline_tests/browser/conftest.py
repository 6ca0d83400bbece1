"""One browser, one made fleet and one server for every test of the page. They are closed with this folder's last test: while a
browser is driven, no other event loop can run in this thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect, sync_playwright

from obs_pipeline.dashboard.page import WIDGET
from obs_pipeline_tests.browser.fleet import MadeFleet, Server

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium"))), None
)
"""The browser: the one that the environment names, else the first that is found."""
# Long enough for a machine that does much else; what holds is seen at once anyway.
expect.set_options(timeout=20_000)
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
_VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""

Open = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = ""
    if CHROMIUM is None:
        reason = "there is no Chromium: apt-get install chromium, or name one by CHROMIUM=/path/to/it"
    elif shutil.which(CHROMIUM) is None:
        reason = f"CHROMIUM={CHROMIUM} is no program"
    elif not WIDGET.exists():
        reason = "the page was not built: make widget"
    here = Path(__file__).parent
    for item in items:
        if reason and here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@dataclass
class Watch:
    """What pages complained of. What a test provokes itself it takes out again by ``forgive``."""

    complaints: list[str] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)

    def over(self, page: Page) -> None:
        self.pages.append(page)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def forgive(self, words: str) -> None:
        self.complaints = [one for one in self.complaints if words not in one]

    def violations(self) -> list[str]:
        return [one for page in self.pages if not page.is_closed() for one in page.evaluate("window.violations ?? []")]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        try:
            launched = driver.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        except Error as error:
            # One that cannot start here (a stub of a package, a library that is missing) is as good as none.
            pytest.skip(f"{CHROMIUM} does not start: {error.message.strip().splitlines()[0]}")
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    fleet = MadeFleet(tmp_path_factory.mktemp("fleet"))
    fleet.add_findings()
    server = Server(fleet)
    yield server
    server.stop()


@pytest.fixture
def server(served: Server) -> Server:
    """The server, running and with its incidents open, whatever a test before did."""
    served.fleet.open_incidents()
    served.start()
    return served


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Nothing may be complained of in any page."""
    watching = Watch()
    yield watching
    assert watching.violations() == []
    assert watching.complaints == []


@pytest.fixture
def context(browser: Browser, watch: Watch) -> Iterator[Callable[..., BrowserContext]]:
    opened: list[BrowserContext] = []

    def new(**options: Any) -> BrowserContext:
        settings: dict[str, Any] = {"viewport": {"width": 1440, "height": 1000}, "reduced_motion": "reduce", **options}
        made = browser.new_context(**settings)
        made.set_default_timeout(20_000)
        made.add_init_script(_VIOLATIONS)
        made.on("page", watch.over)
        opened.append(made)
        return made

    yield new
    found = watch.violations()
    for one in opened:
        one.close()
    assert found == []


@pytest.fixture
def open_page(context: Callable[..., BrowserContext], server: Server) -> Open:
    """Opens the page at a query of the address, signed in unless ``token`` is empty, and waits for its first numbers."""

    def opening(query: str = "", *, token: str | None = None, **options: Any) -> Page:
        page = context(**options).new_page()
        shown = server.fleet.editor if token is None else token
        page.goto(f"{server.address}/{query}{f'#token={shown}' if shown else ''}")
        if shown:
            settled(page)
        return page

    return opening


def settled(page: Page) -> None:
    """Every part is there and answers what is looked at."""
    page.locator(".board").wait_for()
    page.wait_for_function(
        """() => document.querySelector('[data-testid=refresh]')?.dataset.busy === 'false'
            && !document.querySelector('[data-outdated=true]') && document.querySelector('[data-testid=range]').textContent"""
    )

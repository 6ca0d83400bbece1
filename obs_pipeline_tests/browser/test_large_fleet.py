"""The page over 10,000 agents: few rows are drawn, all can be reached, and a refresh is measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from obs_pipeline_tests.browser.conftest import settled
from obs_pipeline_tests.browser.fleet import MadeFleet, Server, many_places

pytestmark = pytest.mark.slow

AGENTS = 10_000
_SCROLL = "list => { list.scrollTop = list.scrollHeight; }"
_REFRESH = """
    async () => {
        const button = document.querySelector("[data-testid=refresh]");
        performance.clearResourceTimings();
        const began = performance.now();
        button.click();
        await new Promise(resolve => {
            const look = () => (button.dataset.busy === "false" ? resolve() : requestAnimationFrame(look));
            requestAnimationFrame(look);
        });
        return performance.now() - began;
    }
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(MadeFleet(tmp_path_factory.mktemp("large"), many_places(AGENTS)))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def page(context, large: Server) -> Page:
    opened = context().new_page()
    opened.goto(f"{large.address}/?level=agent#token={large.fleet.editor}")
    settled(opened)
    return opened


def test_few_rows_are_drawn_and_the_last_agent_is_reached_by_scrolling(page: Page):
    listed = page.get_by_test_id("panel-breakdown")
    rows, body = listed.locator("[data-index]"), listed.locator(".grid-body")
    most = 0
    last = f"agent-{AGENTS - 1:05d}"
    for _ in range(AGENTS // 100):
        body.evaluate(_SCROLL)
        settled(page)
        most = max(most, rows.count())
        if listed.get_by_role("rowheader", name=last).count():
            break
    expect(listed.get_by_role("rowheader", name=last)).to_be_visible()
    assert most < 100
    expect(listed.get_by_role("grid")).to_have_attribute("aria-rowcount", str(AGENTS + 2))
    expect(listed.locator(".grid-rest")).to_have_count(0)


def test_an_agent_among_ten_thousand_is_found_by_its_name_and_opened(page: Page):
    listed = page.get_by_test_id("panel-breakdown")
    listed.get_by_role("searchbox").fill("agent-07777")
    expect(listed.locator("[data-index]")).to_have_count(1)
    listed.locator("[data-index]").click()
    settled(page)
    expect(page.get_by_test_id("breadcrumb")).to_contain_text("agent-07777")


def test_a_refresh_is_measured(page: Page, large: Server, capsys: pytest.CaptureFixture[str]):
    took = sorted(page.evaluate(_REFRESH) for _ in range(9))
    with capsys.disabled():
        print(f"\nA refresh of {AGENTS:,} agents: median {took[4]:.0f} ms, worst of nine {took[-1]:.0f} ms.")
    large.fleet.raise_last_day(2)
    anew = page.evaluate(_REFRESH)
    expect(page.get_by_test_id("notice")).to_be_visible()
    with capsys.disabled():
        print(f"With a new version of the lake to be copied first: {anew:.0f} ms.")
    expect(page.get_by_test_id("status")).to_have_attribute("data-status", "old-data")

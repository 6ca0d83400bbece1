"""Axe, the common check of accessibility, over the page in both themes, at phone width and with everything open."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from obs_pipeline_tests.browser.conftest import Open, settled
from obs_pipeline_tests.browser.packages import AXE, MISSING

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not AXE.exists(), reason=MISSING)]

DESK = {"width": 1440, "height": 1000}
PHONE = {"width": 390, "height": 844}


def serious_faults(page: Page) -> list[str]:
    """What axe calls serious or critical, with the element that it is about."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def nothing(page: Page) -> None:
    settled(page)


def an_anomaly(page: Page) -> None:
    page.get_by_test_id("panel-anomalies").locator(".row-head").first.click()
    expect(page.locator(".explanation")).to_be_visible()


def an_incident(page: Page) -> None:
    page.get_by_role("button", name="Why was I told? triage").click()
    expect(page.get_by_test_id("panel-incidents")).to_contain_text("it is new")


def a_menu(page: Page) -> None:
    page.get_by_test_id("views").click()
    expect(page.get_by_label("Save this view as")).to_be_visible()


def the_table(page: Page) -> None:
    page.get_by_role("button", name="Show as table").click()


def one_agent(page: Page) -> None:
    page.get_by_test_id("breadcrumb").wait_for()
    page.locator("[data-index='0']").click()
    settled(page)


STATES: tuple[Callable[[Page], None], ...] = (nothing, an_anomaly, an_incident, a_menu, the_table, one_agent)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(open_page: Open, scheme: str, size: dict[str, int]):
    page = open_page("?timeframe=week", color_scheme=scheme, viewport=size, bypass_csp=True)
    found = {}
    for state in STATES:
        state(page)
        found[state.__name__] = serious_faults(page)
        page.keyboard.press("Escape")
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_where_a_token_is_asked_for(open_page: Open, scheme: str):
    page = open_page(token="", color_scheme=scheme, bypass_csp=True)
    page.get_by_label("Access token").wait_for()
    assert serious_faults(page) == []

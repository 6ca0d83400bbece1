"""The page as a person uses it, in a real browser: what is seen, clicked, typed, kept and lost."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from obs_pipeline.storage.anomaly_labels import AnomalyLabels
from obs_pipeline_tests.browser.conftest import Open, Watch, settled
from obs_pipeline_tests.browser.fleet import FORMULA, SCRIPT, Server


def panel(page: Page, name: str) -> Locator:
    return page.get_by_test_id(f"panel-{name}")


def rows(page: Page) -> Locator:
    return panel(page, "breakdown").locator("[data-index]")


def row(page: Page, name: str) -> Locator:
    return rows(page).filter(has=page.get_by_role("rowheader", name=name, exact=True))


def path(page: Page) -> list[str]:
    """The steps above what is looked at, and it."""
    steps: list[str] = (
        page.get_by_test_id("breadcrumb")
        .locator(".crumb")
        .evaluate_all("steps => steps.map(step => step.lastChild.textContent)")
    )
    return steps


def figure(page: Page) -> str:
    return panel(page, "cost").locator(".figure").inner_text()


def query(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def asked(page: Page) -> list[str]:
    """The questions that are put from now on."""
    found: list[str] = []
    page.on("request", lambda one: found.append(one.post_data or "") if "/api/" in one.url else None)
    return found


def focused(page: Page, what: str) -> str:
    found: str = page.evaluate(f"(focused => {what})(document.activeElement)")
    return found


def tab_to(page: Page, there: str, most: int = 60) -> None:
    for _ in range(most):
        page.keyboard.press("Tab")
        assert focused(page, "getComputedStyle(focused).outlineStyle") != "none", focused(page, "focused.outerHTML")
        if focused(page, f"focused.matches({there!r})"):
            return
    raise AssertionError(f"Tab does not lead to {there}.")


def test_a_refused_token_is_told_and_a_good_one_opens_the_numbers(open_page: Open, server: Server, watch: Watch):
    page = open_page(token="")
    assert "$" not in page.locator("body").inner_text()
    page.get_by_label("Access token").fill("obs_never-made")
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#token-why")).to_contain_text("not known")
    watch.forgive("401")
    page.get_by_label("Access token").fill(server.fleet.editor)
    page.keyboard.press("Enter")
    settled(page)
    assert figure(page).startswith("$")
    assert path(page) == ["acme"]
    assert "globex" not in page.locator("body").inner_text()


def test_a_token_in_a_link_is_taken_out_of_the_address_and_lasts_as_long_as_the_tab(open_page: Open):
    page = open_page("?timeframe=day")
    assert "obs_" not in page.url
    page.reload()
    settled(page)
    page.get_by_test_id("account").click()
    page.get_by_role("button", name="Forget the token").click()
    page.reload()
    expect(page.get_by_label("Access token")).to_be_focused()


def test_rows_lead_down_from_organisation_to_model_and_the_path_leads_up_again(open_page: Open, server: Server):
    page = open_page(token=server.fleet.everyone)
    for name in ("acme", "atlas", "triage"):
        cost = row(page, name).locator(".cell-cost").inner_text()
        row(page, name).click()
        settled(page)
        assert path(page)[-1] == name
        assert figure(page) == cost
    row(page, "gpt-5").click()
    settled(page)
    assert path(page) == ["All organisations", "acme", "atlas", "triage", "gpt-5"]
    page.get_by_test_id("breadcrumb").get_by_role("button", name="atlas").click()
    settled(page)
    assert query(page) == {"orgId": "acme", "projectId": "atlas"}
    page.get_by_test_id("breadcrumb").get_by_role("button").first.click()
    settled(page)
    assert query(page) == {}
    assert rows(page).count() == 2


def test_the_address_holds_the_view_over_reload_back_forward_and_in_another_tab(
    open_page: Open, server: Server, context: Callable[..., BrowserContext]
):
    page = open_page("?timeframe=month&metric=tokens&projectId=borealis")
    expect(panel(page, "trend").get_by_role("button", name="Tokens")).to_have_attribute("aria-pressed", "true")
    row(page, "writer-07").click()
    settled(page)
    there, cost = page.url, figure(page)
    page.go_back()
    settled(page)
    assert path(page)[-1] == "borealis"
    page.go_forward()
    settled(page)
    page.reload()
    settled(page)
    assert (page.url, figure(page)) == (there, cost)
    another = context().new_page()
    another.goto(f"{there}#token={server.fleet.editor}")
    settled(another)
    assert (another.url, figure(another), path(another)) == (there, cost, path(page))


def test_a_search_is_asked_for_once_when_typing_pauses(open_page: Open):
    page = open_page("?level=agent")
    found = asked(page)
    panel(page, "breakdown").get_by_role("searchbox").press_sequentially("writer-1", delay=25)
    expect(rows(page)).to_have_count(10)
    assert len(found) == 1
    assert '"search":"writer-1"' in found[0]
    assert query(page)["search"] == "writer-1"
    panel(page, "breakdown").get_by_role("searchbox").fill("nobody")
    expect(panel(page, "breakdown")).to_contain_text("Nothing is called like “nobody”.")


def test_a_refresh_keeps_the_old_numbers_until_the_new_version_is_there(open_page: Open, server: Server):
    page = open_page()
    before, held = figure(page), list[Route]()
    page.route("**/api/*", lambda route: held.append(route))
    page.evaluate("window.emptied = false")
    page.evaluate(
        """new MutationObserver(() => { window.emptied ||= !document.querySelector('[data-testid=panel-cost] .figure'); })
            .observe(document.body, { subtree: true, childList: true })"""
    )
    server.fleet.raise_last_day(10)
    page.get_by_test_id("refresh").click()
    expect(page.get_by_test_id("refresh")).to_have_attribute("data-busy", "true")
    assert figure(page) == before
    for route in held:
        route.continue_()
    page.unroute("**/api/*")
    expect(panel(page, "cost").locator(".figure")).not_to_have_text(before)
    settled(page)
    expect(page.get_by_test_id("notice")).to_contain_text("Refreshed.")
    assert not page.evaluate("window.emptied")


def test_what_is_there_is_asked_for_again_by_itself(
    open_page: Open, server: Server, context: Callable[..., BrowserContext]
):
    one = context()
    one.clock.install()
    page = one.new_page()
    page.goto(f"{server.address}/#token={server.fleet.editor}")
    settled(page)
    before = figure(page)
    server.fleet.raise_last_day(3)
    page.clock.fast_forward(31_000)
    expect(panel(page, "cost").locator(".figure")).not_to_have_text(before)
    expect(page.get_by_test_id("notice")).to_contain_text("New data came in.")


def test_an_answer_that_was_overtaken_is_dropped(open_page: Open):
    page = open_page()
    held: list[Route] = []

    def keep_months(route: Route) -> None:
        if '"month"' in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/api/*", keep_months)
    page.get_by_role("button", name="Month", exact=True).click()
    expect(panel(page, "cost")).to_have_attribute("data-outdated", "true")
    page.get_by_role("button", name="Day", exact=True).click()
    settled(page)
    day, shown = figure(page), page.get_by_test_id("range").inner_text()
    assert len(held) >= 3
    for route in held:
        with page.expect_response(route.request.url):
            route.continue_()
    page.wait_for_timeout(100)
    assert (figure(page), page.get_by_test_id("range").inner_text()) == (day, shown)


def test_a_server_that_is_away_is_told_with_the_old_numbers_left_and_found_again_by_itself(
    server: Server, context: Callable[..., BrowserContext], watch: Watch
):
    one = context()
    one.clock.install(time="2026-03-05T01:00:00Z")
    page = one.new_page()
    page.goto(f"{server.address}/#token={server.fleet.editor}")
    settled(page)
    before, status = figure(page), page.get_by_test_id("status")
    expect(status).to_have_attribute("data-status", "fresh")
    server.stop()
    page.clock.fast_forward(31_000)
    expect(status).to_have_attribute("data-status", "failed")
    expect(page.get_by_test_id("banner")).to_contain_text("cannot be reached")
    watch.forgive("ERR_CONNECTION")
    assert figure(page) == before
    server.start()
    page.clock.fast_forward(31_000)
    expect(status).to_have_attribute("data-status", "fresh")
    expect(page.get_by_test_id("banner")).to_have_count(0)
    page.clock.set_system_time("2026-03-09T00:00:00Z")
    page.clock.fast_forward(31_000)
    expect(status).to_have_text(re.compile("Data end 4 Mar"))


def test_a_server_that_cannot_answer_yet_is_waited_for_and_the_token_is_kept(
    server: Server, context: Callable[..., BrowserContext], watch: Watch
):
    one = context()
    one.clock.install()
    page = one.new_page()
    told = {"error": "There is no usage in the lake yet. Run: obs-pipeline batch"}
    page.route("**/api/whoami", lambda route: route.fulfill(status=503, json=told))
    page.goto(f"{server.address}/#token={server.fleet.editor}")
    expect(page.get_by_test_id("away")).to_contain_text("Run: obs-pipeline batch")
    watch.forgive("503")
    page.unroute("**/api/whoami")
    page.clock.fast_forward(6_000)
    settled(page)
    assert figure(page).startswith("$")


def test_the_exported_file_comes_to_what_the_screen_says_and_holds_no_formula(open_page: Open):
    page = open_page("?timeframe=week&projectId=borealis")
    page.get_by_test_id("export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV file").click()
    text = Path(download.value.path()).read_text()
    exported = list(csv.DictReader(io.StringIO(text)))
    total = sum(Decimal(one["cost"]) for one in exported)
    assert f"${total:,.2f}" == figure(page)
    assert {one["project"] for one in exported} == {"borealis"}
    assert f"'{FORMULA}" in {one["agent"] for one in exported}
    assert not any(value.startswith(("=", "+", "-", "@")) for one in exported for value in one.values())
    expect(page.get_by_test_id("notice")).to_contain_text(f"Saved {len(exported)} rows")


def test_a_viewer_is_offered_only_what_it_may(open_page: Open, server: Server):
    page = open_page(token=server.fleet.viewer)
    assert page.get_by_test_id("export").count() == 0
    page.get_by_test_id("views").click()
    assert page.get_by_label("Save this view as").count() == 0
    page.keyboard.press("Escape")
    panel(page, "anomalies").locator(".row-head").first.click()
    expect(panel(page, "anomalies").locator(".explanation")).to_be_visible()
    assert panel(page, "anomalies").get_by_role("group", name="What it was").count() == 0
    assert panel(page, "incidents").get_by_role("button", name=re.compile("Acknowledge")).count() == 0


def test_what_is_wrong_now_stands_first_with_whose_it_is_and_since_when(open_page: Open):
    page = open_page()
    first = panel(page, "attention")
    assert first.bounding_box()["y"] < panel(page, "cost").bounding_box()["y"]
    expect(first).to_contain_text("1 budget is over the limit: acme, weekly cost at 130%")
    told = first.get_by_role("listitem").filter(has_text="writer-05 spends too much")
    expect(told).to_contain_text("borealis, since 4 Mar 2026, 11:00 UTC")
    told.get_by_role("button", name="writer-05 spends too much").click()
    settled(page)
    assert path(page)[-1] == "writer-05"
    expect(panel(page, "incidents").get_by_role("button", expanded=True)).to_have_count(1)


def test_an_acknowledged_incident_is_shown_as_such_and_stays_so(open_page: Open):
    page = open_page()
    listed, first = panel(page, "incidents"), panel(page, "attention")
    expect(first.get_by_role("listitem").first).to_contain_text("triage")
    listed.get_by_role("button", name="Acknowledge triage").click()
    tag = listed.locator(".row").filter(has_text="triage").locator(".status-tag")
    expect(tag).to_have_text("acknowledged")
    expect(first).not_to_contain_text("triage")
    page.reload()
    settled(page)
    expect(tag).to_have_text("acknowledged")
    expect(listed).to_contain_text("taken on by Edith")
    listed.get_by_role("button", name="Why was I told? triage").click()
    expect(listed).to_contain_text("it is new")
    expect(listed.get_by_role("link")).to_have_count(1)
    expect(listed.get_by_role("link", name="github 7")).to_have_attribute("href", "https://tasks.example/7")
    expect(listed.get_by_role("list", name="Tasks")).to_contain_text("odd 7")


def test_an_anomaly_opens_with_its_likely_cause_and_parts_and_by_a_link(open_page: Open):
    page = open_page()
    panel(page, "anomalies").locator(".row-head").first.click()
    opened = panel(page, "anomalies").locator(".row-body")
    expect(opened).to_contain_text("Likely cause: more calls. 120 calls, usually 30.")
    steps = [one.split() for one in opened.locator(".waterfall tbody tr").all_inner_texts()]
    assert [(*one[:1], one[-1]) for one in steps] == [
        ("Expected", "$0.40"), ("Volume", "+$1.50"), ("Unit", "−$0.10"), ("Observed", "$1.80"),
    ]  # fmt: skip
    again = open_page(f"?anomalyId={query(page)['anomalyId']}")
    expect(again.get_by_test_id("panel-anomalies").locator(".explanation")).to_contain_text("$1.80")


def test_a_view_is_saved_under_a_name_and_opened_again(open_page: Open):
    page = open_page("?timeframe=day&projectId=atlas")
    page.get_by_test_id("views").click()
    page.get_by_label("Save this view as").fill("Atlas today")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_test_id("notice")).to_contain_text("Saved the view “Atlas today”.")
    other = open_page()
    other.get_by_test_id("views").click()
    other.get_by_role("list", name="Saved views").get_by_role("button", name="Atlas today").first.click()
    settled(other)
    assert query(other) == {"timeframe": "day", "projectId": "atlas"}


def test_a_saved_view_gets_another_name_and_is_deleted_once_that_was_said_twice(open_page: Open):
    page = open_page("?timeframe=month")
    saved = page.get_by_role("list", name="Saved views")
    page.get_by_test_id("views").click()
    page.get_by_label("Save this view as").fill("For a while")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("notice")).to_contain_text("Saved the view")
    page.get_by_test_id("views").click()
    page.get_by_role("button", name="Rename For a while").click()
    page.get_by_label("New name of For a while").fill("1/2 & more")
    page.keyboard.press("Enter")
    expect(saved.get_by_role("button", name="1/2 & more").first).to_be_visible()
    expect(saved).not_to_contain_text("For a while")
    page.get_by_role("button", name="Delete 1/2 & more").click()
    page.get_by_role("button", name="Keep").click()
    page.get_by_role("button", name="Delete 1/2 & more").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_test_id("notice")).to_contain_text("Deleted the view “1/2 & more”.")
    expect(page.get_by_test_id("account")).to_be_visible()
    assert "1/2" not in page.get_by_role("group", name="Views").inner_text()


def test_other_days_are_walked_to_and_stand_in_the_address_and_the_export(open_page: Open):
    page = open_page("?timeframe=day&projectId=atlas")
    shown, newest = page.get_by_test_id("range"), figure(page)
    expect(page.get_by_role("button", name="Later")).to_be_disabled()
    page.get_by_role("button", name="Earlier").click()
    settled(page)
    expect(shown).to_have_text("3 Mar 2026 UTC")
    assert query(page)["end"] == "2026-03-03"
    page.reload()
    settled(page)
    expect(shown).to_have_text("3 Mar 2026 UTC")
    page.get_by_test_id("export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV file").click()
    exported = csv.DictReader(io.StringIO(Path(download.value.path()).read_text()))
    assert {one["day"] for one in exported} == {"2026-03-03"}
    page.get_by_test_id("period").click()
    page.get_by_label("Last day").fill("2026-03-02")
    page.keyboard.press("Enter")
    settled(page)
    expect(shown).to_have_text("2 Mar 2026 UTC")
    page.get_by_role("button", name="Newest").click()
    settled(page)
    assert figure(page) == newest
    page.get_by_role("button", name="Earlier").click()
    settled(page)
    page.get_by_role("button", name="Later").click()
    settled(page)
    assert "end" not in query(page)
    assert figure(page) == newest


def test_what_somebody_knows_of_an_anomaly_is_kept(open_page: Open, server: Server):
    page = open_page()
    panel(page, "anomalies").locator(".row-head").first.click()
    said = panel(page, "anomalies").get_by_role("group", name="What it was")
    said.get_by_role("button", name="Planned").click()
    expect(page.get_by_test_id("notice")).to_contain_text("it was planned")
    expect(said.get_by_role("button", name="Planned")).to_have_attribute("aria-pressed", "true")
    (kept,) = AnomalyLabels(server.fleet.ledger).standing()
    assert (kept.verdict, kept.agent, kept.author) == ("planned", "triage", "Edith")
    tag = panel(page, "anomalies").locator(".row").first.locator(".status-tag")
    expect(tag).to_have_text("Planned")
    page.reload()
    settled(page)
    expect(tag).to_have_text("Planned")


def test_the_keyboard_alone_leads_everywhere(open_page: Open):
    page = open_page("?projectId=borealis")
    page.keyboard.press("Tab")
    assert focused(page, "focused.textContent") == "Skip to the numbers"
    page.keyboard.press("Enter")
    assert focused(page, "focused.id") == "content"
    tab_to(page, "[data-index]")
    assert focused(page, "focused.dataset.index") == "0"
    for key, index in (("ArrowDown", "1"), ("PageDown", "17"), ("End", "30"), ("Home", "0"), ("ArrowDown", "1")):
        page.keyboard.press(key)
        page.wait_for_function(f"() => document.activeElement.dataset.index === '{index}'")
    name = focused(page, "focused.querySelector('[role=rowheader]').textContent.trim()")
    page.keyboard.press("Enter")
    settled(page)
    assert path(page)[-1] == name
    page.wait_for_function("() => document.activeElement.dataset.index === '0'")
    page.get_by_test_id("breadcrumb").get_by_role("button", name="borealis").press("Enter")
    settled(page)
    assert focused(page, "focused.lastChild.textContent") == "borealis"
    page.get_by_test_id("refresh").focus()
    order = []
    for _ in range(4):
        page.keyboard.press("Tab")
        order.append(focused(page, "focused.dataset.testid"))
    assert order == ["views", "export", "theme", "account"]
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Forget the token")).to_be_visible()
    page.keyboard.press("Escape")
    assert focused(page, "focused.dataset.testid") == "account"


def test_colours_follow_the_system_until_they_are_chosen(open_page: Open):
    page = open_page(color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"() => {ground} !== {dark!r}")
    light = page.evaluate(ground)
    page.get_by_test_id("theme").click()
    assert page.evaluate(ground) == dark
    page.reload()
    settled(page)
    assert page.evaluate(ground) == dark
    page.get_by_test_id("theme").click()
    assert page.evaluate(ground) == light


def test_nothing_reaches_beyond_the_edge_of_a_phone(open_page: Open):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(beyond) == 0
    panel(page, "anomalies").locator(".row-head").first.click()
    expect(panel(page, "anomalies").locator(".explanation")).to_be_visible()
    assert page.evaluate(beyond) == 0
    page.get_by_test_id("views").click()
    expect(page.get_by_label("Save this view as")).to_be_in_viewport(ratio=1)
    assert page.evaluate(beyond) == 0
    page.keyboard.press("Escape")
    row(page, "atlas").click()
    settled(page)
    row(page, SCRIPT).click()
    settled(page)
    assert page.evaluate(beyond) == 0


def test_a_name_like_markup_stays_text_everywhere(open_page: Open):
    page = open_page("?projectId=atlas")
    row(page, SCRIPT).click()
    settled(page)
    assert path(page)[-1] == SCRIPT
    assert query(page)["agentId"] == SCRIPT
    page.reload()
    settled(page)
    assert page.locator("script").count() == 1

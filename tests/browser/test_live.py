"""Pages that follow what happens: many of them at once, and one of which much happens."""

from __future__ import annotations

from playwright.sync_api import expect

#: Chromium counts all pages of a test as seen. This hides one as another tab in front of it would.
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
#: Over HTTP/1.1 a browser has six connections to one server for all its tabs.
TABS = 20


def test_twenty_tabs_do_not_keep_each_other_from_the_daemon(place, tab):
    tabs = []
    for _ in range(TABS):
        page = tab.context.new_page()
        page.goto("/executions?flow=fails")
        page.evaluate(HIDE, True)
        tabs.append(page)
    rows = tabs[0].locator("main tbody tr")
    before = rows.count()
    failed = place.daemon.run("fails")["id"]
    tabs[0].evaluate(HIDE, False)
    expect(rows).to_have_count(before + 1)
    tab.page.goto(f"/executions/{failed}")
    expect(tab.page.locator("h1")).to_have_text("fails")


def test_a_page_that_was_hidden_goes_on_with_the_log_where_it_was(place, tab):
    waiting = place.daemon.client.run("floods")["id"]
    page = tab.page
    page.goto(f"/executions/{waiting}")
    expect(page.locator(".log .text")).to_have_text(["before"])
    page.evaluate(HIDE, True)
    _let_go(place, waiting)
    place.daemon.client.execution(waiting, 20)
    expect(page.locator(".log .text")).to_have_text(["before"])
    page.evaluate(HIDE, False)
    expect(page.locator(".log .text").last).to_have_text("line 2999")
    expect(page.locator(".log .text").filter(has_text="line 2998")).to_have_count(1)


def test_a_log_that_grows_fast_fills_neither_the_page_nor_keeps_it_from_answering(place, tab):
    waiting = place.daemon.client.run("floods")["id"]
    page = tab.page
    page.goto(f"/executions/{waiting}")
    expect(page.locator(".log .text")).to_have_text(["before"])
    _let_go(place, waiting)
    expect(page.locator(".log .text").filter(has_text="line ").first).to_be_attached()
    page.locator("h1").click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".log .text").last).to_have_text("line 2999")
    assert page.locator(".log tr").count() == 2000
    expect(page.locator("main .heading .pill")).to_have_text("Succeeded")


def _let_go(place, execution):
    client = place.daemon.client
    (message,) = (one for one in client.messages(pending=True) if one["execution_id"] == execution)
    client.answer(message["id"], {"OK": True})

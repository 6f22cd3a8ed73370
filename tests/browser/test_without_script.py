"""The pages in a browser that runs no script: everything somebody has to do can be done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from .conftest import Place, chromium


@pytest.fixture
def page(place: Place) -> Iterator[chromium.playwright.Page]:
    """A page of somebody who switched scripts off."""
    tab = place.tab(java_script_enabled=False)
    yield tab.page
    tab.close()


def test_a_flow_is_written_tried_saved_and_run(place, page):
    page.goto("/flows")
    page.get_by_role("link", name="New flow").click()
    page.get_by_label("Name").fill("without script")
    page.get_by_label("Script").fill("def handler(system, this, inputs):\n    return {'made': 1}\n")
    page.get_by_text("Try it without saving").click()
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Try").click()
    expect(opened.value.locator("h1")).to_be_visible()
    page.get_by_label("What the commit says").fill("Write it without script")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_have_text("without script")
    assert "'made': 1" in place.committed("without script.py")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("main .heading .pill")).to_have_text("Succeeded")
    expect(page.locator("#outputs")).to_contain_text('"made": 1')


def test_who_saves_over_somebody_elses_change_is_told(place, page):
    place.daemon.client.save_flow("shared", "def handler(system, this):\n    return 1\n")
    page.goto("/edit?flow=shared")
    place.daemon.client.save_flow("shared", "def handler(system, this):\n    return 'theirs'\n")
    page.get_by_label("Script").fill("def handler(system, this):\n    return 'mine'\n")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody else changed")
    expect(page.get_by_label("Script")).to_have_value("def handler(system, this):\n    return 'mine'\n")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_have_text("shared")
    assert "'mine'" in place.committed("shared.py")


def test_a_message_is_answered_on_the_page_of_who_asks(page):
    page.goto("/flows/asks")
    page.get_by_role("button", name="Run", exact=True).click()
    question = page.get_by_role("region", name="It asks")
    question.get_by_label("Where").fill("staging")
    question.get_by_role("button", name="Go").click()
    expect(page.locator("main .heading .pill")).to_have_text("Succeeded")
    expect(page.locator("#outputs")).to_contain_text("staging")


def test_an_execution_is_cancelled_and_the_page_says_so_by_itself(page):
    page.goto("/flows/waits")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("main .heading .pill")).to_have_text("Cancelled")


def test_an_execution_is_followed_also_from_a_place_on_its_page(place, page):
    """A page whose address names a place on it, as after an answer, is reloaded only if it is told where."""
    started = place.daemon.client.run("waits")
    page.goto(f"/executions/{started['id']}#messages")
    expect(page.locator("main .heading .pill")).to_have_text("Waiting")
    place.daemon.client.cancel(started["id"])
    expect(page.locator("main .heading .pill")).to_have_text("Cancelled")


def test_lists_are_filtered(place, page):
    place.daemon.run("fails")
    page.goto("/executions")
    page.get_by_label("Flow").fill("fails")
    page.get_by_label("Status").select_option("ENDED_ERROR")
    page.get_by_role("button", name="Find").click()
    assert set(page.locator("main tbody .name").all_inner_texts()) == {"fails"}
    page.goto("/flows")
    page.get_by_label("Name").fill("decl")
    page.get_by_role("button", name="Find").click()
    assert page.locator("main tbody .name").all_inner_texts() == ["declared"]


def test_a_setting_is_made_changed_and_deleted(place, page):
    page.goto("/settings")
    page.get_by_label("Name").last.fill("plain")
    page.get_by_label("Value, as YAML").fill("a: 1\n")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Value, as YAML").fill("a: [1\n")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Line 2")
    page.get_by_label("Value, as YAML").fill("a: 2\n")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_have_text("plain")
    assert place.daemon.client.kept_one("settings", "plain")["value"] == {"a": 2}
    page.get_by_text("Delete it").click()
    page.get_by_role("button", name="Delete plain").click()
    expect(page.locator("h1")).to_have_text("Settings")
    assert "plain" not in page.locator("main").inner_text()


def test_files_are_uploaded_several_at_once_and_deleted(place, page):
    page.goto("/files")
    files = [{"name": f"a {n}.bin", "mimeType": "text/plain", "buffer": bytes(range(n))} for n in (100, 256)]
    page.set_input_files("#upload", files)
    page.get_by_label("Into folder").fill("/plain/")
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("main tbody tr", has_text="plain/a 256.bin")).to_contain_text("256 bytes")
    assert place.daemon.client.file("plain/a 100.bin") == bytes(range(100))
    assert place.daemon.client.file("plain/a 256.bin") == bytes(range(256))
    for n in (100, 256):
        page.get_by_role("button", name=f"Delete plain/a {n}.bin").click()
    expect(page.locator("main tbody tr", has_text="plain/")).to_have_count(0)
    assert place.daemon.client.audit(1)[0]["what"] == "POST /files/delete"


def test_large_values_are_read_part_by_part(place, page):
    place.daemon.run("large")
    page.goto(f"/executions/{place.daemon.client.executions(flow='large')['items'][0]['id']}")
    rows = page.locator('[id="outputs:/rows"]')
    rows.locator("summary").first.click()
    rows.get_by_role("link", name="150 more").click()
    expect(page.locator("main .folded > ul > li").first).to_contain_text("100:")
    page.get_by_role("link", name="The whole value").click()
    expect(page.locator("main .folded > ul > li")).to_have_count(3)

"""What people do on the pages, in a real browser: write, try, save, run, follow, answer, cancel."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from headrace.daemon import assets
from tests.support import chromium

AXE = Path(assets.__file__).parent / "web/dist/axe.test.js"
SELECT_ALL = "Control+a"
#: What is wrong with the ids of a page: those that stand twice, and what names one that is not there.
LOOSE_ENDS = """() => {
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  const twice = ids.filter((id, n) => ids.indexOf(id) !== n).map((id) => `${id} stands twice`);
  const names = ["for", "list", "aria-labelledby", "aria-describedby", "aria-controls", "aria-owns", "data-original"];
  const named = names.flatMap((name) => [...document.querySelectorAll(`[${name}]`)]
    .flatMap((one) => one.getAttribute(name).split(" ").map((id) => [name, id])));
  const anchors = [...document.querySelectorAll("a[href^='#']")]
    .map((one) => ["href", decodeURIComponent(one.hash.slice(1))]);
  const loose = [...named, ...anchors].filter(([, id]) => !document.getElementById(id));
  return [...twice, ...loose.map(([name, id]) => `${name} names ${id}`)];
}"""
#: What has the focus inside of the page's own part: its number, and whether that can be seen.
FOCUSED = """() => {
  const at = document.activeElement;
  const main = document.querySelector("main");
  if (!main.contains(at) || at === main) return null;
  const { outlineStyle, outlineWidth } = getComputedStyle(at.closest(".cm-editor") ?? at);
  const seen = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
  return { n: [...main.querySelectorAll("*")].indexOf(at), seen, html: at.outerHTML.slice(0, 120) };
}"""
#: What sticks out on a small screen without being made to be scrolled.
CUT = """() => [...document.querySelectorAll("main *")].filter((one) => {
  const { overflowX, position } = getComputedStyle(one);
  const inside = one.closest(".cm-editor, .source, pre, .folded, .log, .unseen, select, textarea, input, svg");
  const cut = !inside && overflowX === "visible" && position !== "absolute";
  return cut && one.getBoundingClientRect().right > innerWidth;
}).map((one) => one.outerHTML.slice(0, 120))"""


def written(tab, text):
    """Type ``text`` into the editor in place of what is there."""
    tab.page.locator(".editor .cm-content").first.click()
    tab.page.keyboard.press(SELECT_ALL)
    tab.page.keyboard.insert_text(text)


def ended(tab, word="Succeeded"):
    expect(tab.page.locator("main .heading .pill")).to_have_text(word)


def test_a_flow_is_written_tried_saved_run_and_followed_to_its_end(place, tab):
    page = tab.page
    page.goto("/flows")
    page.get_by_role("link", name="New flow").click()
    assert re.match(r"new flow \d{4}-\d\d-\d\dT", page.input_value("#name"))
    page.fill("#name", "made here")
    written(tab, "def handler(system, this):\n    this.log('made in the browser')\n    return {'made': 1}\n")
    page.get_by_text("Try it without saving").click()
    with tab.context.expect_page() as opened:
        page.get_by_role("button", name="Try").click()
    tried = opened.value
    expect(tried.locator("main .heading .pill")).to_have_text("Succeeded")
    expect(tried.locator(".log")).to_contain_text("made in the browser")
    assert "made here" not in [flow["name"] for flow in place.daemon.client.flows()]
    page.fill("#message", "Make it in the browser")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_have_text("made here")
    assert "made in the browser" in place.committed("made here.py")
    page.get_by_role("button", name="Run", exact=True).click()
    ended(tab)
    expect(page.locator(".log")).to_contain_text("made in the browser")
    expect(page.locator("#outputs")).to_contain_text('"made": 1')


def test_a_form_asks_for_the_inputs_a_flow_declares_and_tells_what_is_wrong_with_each(tab):
    page = tab.page
    page.goto("/flows/declared")
    page.get_by_label("Volume").fill("v")
    page.get_by_label("Copies").fill("0")
    page.get_by_role("button", name="Run", exact=True).first.click()
    expect(page.get_by_label("Volume")).to_have_accessible_description(re.compile("shorter than 2"))
    expect(page.get_by_label("Copies")).to_have_accessible_description(re.compile("less than the minimum"))
    page.get_by_label("Volume").fill("v1")
    page.get_by_label("Copies").fill("2")
    page.get_by_label("Hosts").fill('["a"]')
    page.get_by_role("button", name="Run", exact=True).first.click()
    ended(tab)
    expect(page.locator("#outputs")).to_contain_text('"copies": 2')
    tab.wrong = [one for one in tab.wrong if "422" not in one]


def test_maintenance_is_begun_with_a_reason_and_ended_on_the_overview(tab, place):
    page = tab.page
    page.goto("/")
    page.get_by_text("Maintenance", exact=True).click()
    page.get_by_label("Why").fill("a new <disk>")
    page.get_by_role("button", name="Begin maintenance").click()
    expect(page.locator(".callout.warn")).to_contain_text("Nothing new begins. Maintenance: a new <disk>")
    assert place.daemon.client.status()["maintenance"]["reason"] == "a new <disk>"
    expect(page.get_by_role("button", name="Begin maintenance")).to_have_count(0)
    page.get_by_role("button", name="End maintenance").click()
    expect(page.locator(".callout.warn")).to_have_count(0)
    assert place.daemon.client.status()["maintenance"] is None


def test_a_running_execution_is_followed_without_loading_the_page_again(tab):
    page = tab.page
    page.goto("/flows/talks")
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator("h1").evaluate("() => { document.body.id = 'the same page' }")
    ended(tab)
    for n in range(3):
        expect(page.locator(".log .text").filter(has_text=f"line {n}")).to_have_count(1)
    assert page.locator("body").get_attribute("id") == "the same page"


def test_who_saves_over_somebody_elses_change_is_told_and_shown_both(place, tab):
    page = tab.page
    place.daemon.client.save_flow("both", "def handler(system, this):\n    return 1\n")
    page.goto("/edit?flow=both")
    written(tab, "def handler(system, this):\n    return 'mine'\n")
    place.daemon.client.save_flow("both", "def handler(system, this):\n    return 'theirs'\n")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody else changed")
    expect(page.locator(".cm-deletedChunk").first).to_contain_text("theirs")
    assert "'theirs'" in place.committed("both.py")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_have_text("both")
    assert "'mine'" in place.committed("both.py")
    tab.wrong = [one for one in tab.wrong if "409" not in one]  # browsers call an answer of that kind an error


def test_the_margin_says_what_is_wrong_while_somebody_types(tab):
    tab.page.goto("/edit")
    written(tab, "def handler(system, this)\n    pass\n")
    expect(tab.page.locator(".cm-lint-marker-error")).to_have_count(1)
    written(tab, "def handler(system, this):\n    pass\n")
    expect(tab.page.locator(".cm-lint-marker-error")).to_have_count(0)
    tab.page.keyboard.press("Control+End")
    tab.page.keyboard.type("\n    this.set_o")
    expect(tab.page.locator(".cm-tooltip-autocomplete")).to_contain_text("set_output")


def test_an_answer_on_the_page_lets_the_flow_go_on(tab):
    page = tab.page
    page.goto("/flows/asks")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("link", name="Deploy?").click()
    page.get_by_label("Where").fill("production")
    page.get_by_role("button", name="Go").click()
    expect(page.locator("main")).to_contain_text("Answered by")
    page.locator("main").get_by_role("link", name="asks", exact=True).click()
    ended(tab)
    expect(page.locator("#outputs")).to_contain_text("production")


def test_what_waits_is_answered_on_its_own_page_and_shows_who_did(tab):
    page = tab.page
    page.goto("/flows/asks")
    page.get_by_role("button", name="Run", exact=True).click()
    question = page.get_by_role("region", name="It asks")
    question.get_by_label("Where").fill("staging")
    question.get_by_role("button", name="Go").click()
    page.wait_for_url("**/executions/*#messages")
    ended(tab)
    expect(page.locator(".answers")).to_contain_text("Deploy?")
    expect(page.locator(".answers")).to_contain_text("staging")
    expect(page.locator(".answers strong")).to_have_text("admin")
    expect(page.locator("#outputs")).to_contain_text("staging")


def test_run_again_runs_the_same_with_the_same_inputs_and_stands_in_the_audit_log(place, tab):
    page = tab.page
    before = place.daemon.run("declared", volume="v7")
    page.goto(f"/executions/{before['id']}")
    page.get_by_role("button", name="Run again", exact=True).click()
    ended(tab)
    again = page.url.rpartition("/")[2]
    assert again != before["id"]
    assert place.daemon.client.execution(again)["input_value"] == {"volume": "v7"}
    entry = place.daemon.client.audit(1)[0]
    assert (entry["what"], entry["made"]) == ("POST /executions/{id}/rerun", f"/executions/{again}")
    page.get_by_role("link", name="With changes…").click()
    expect(page.get_by_label("Volume")).to_have_value("v7")


def test_a_small_screen_shows_the_whole_timeline_with_labels_above_the_bars(place):
    tab = place.tab(viewport={"width": 390, "height": 844})
    tab.page.goto(f"/executions/{place.daemon.run('guards')['id']}")
    timeline = tab.page.locator(".timeline")
    assert timeline.evaluate("one => one.scrollWidth <= one.clientWidth")
    rows = timeline.locator("li:not(.ticks)")
    assert rows.count() == 2
    for row in rows.all():
        label, bars = row.locator(".label").bounding_box(), row.locator("svg").bounding_box()
        assert label["y"] + label["height"] <= bars["y"] and bars["width"] > 300
    assert "running" in rows.first.locator("svg").get_attribute("aria-label")
    tab.close()


def test_what_is_code_in_a_hint_is_shown_as_code(tab):
    tab.page.goto("/flows/nowhere")
    expect(tab.page.locator("main code")).to_have_text("headrace flows")
    assert "`" not in tab.page.locator("main").inner_text()
    tab.wrong = [one for one in tab.wrong if "404" not in one]


def test_large_values_are_unfolded_where_somebody_looks_and_show_no_secret(place, tab):
    page = tab.page
    place.daemon.run("guards")
    large = place.daemon.client.executions(flow="large")["items"][0]
    page.goto(f"/executions/{large['id']}")
    outputs = page.locator("#outputs")
    rows = page.locator('[id="outputs:/rows"]')
    rows.locator("summary").first.click()
    expect(rows.locator(":scope > ul > li")).to_have_count(101)
    rows.locator(":scope > ul > li > [data-more]").click()
    expect(rows.locator(":scope > ul > li")).to_have_count(201)
    last = rows.locator(":scope > ul > li").nth(199)
    last.locator("summary").first.click()
    expect(last).to_contain_text('"row": 199')
    file = page.locator('[id="outputs:/file"]')
    file.locator("summary").first.click()
    expect(file.locator(":scope > ul > li").first).to_contain_text("zzzz")
    assert "4711" not in page.content()
    with page.expect_download() as downloaded:
        outputs.get_by_role("link", name="Download").click()
    text = downloaded.value.path().read_text()
    assert '"row":249' in text and "4711" not in text


def test_two_runs_side_by_side_are_folded_like_one_and_name_what_differs(place, tab):
    page = tab.page
    guarded = [place.daemon.run("guards") for _ in range(2)]
    first, second = [place.daemon.client.executions(parent=one["id"])["items"][0]["id"] for one in guarded]
    page.goto(f"/compare?a={first}&b={second}")
    for side in ("first", "second"):
        rows = page.locator(f'[id="{side}-outputs:/rows"]')
        rows.locator("summary").first.click()
        expect(rows.locator(":scope > ul > li")).to_have_count(101)
    assert "4711" not in page.content()
    assert page.evaluate(LOOSE_ENDS) == []
    page.goto(f"/compare?a={guarded[0]['id']}&b={guarded[1]['id']}")
    expect(page.locator(".sides .differs")).to_have_count(0)
    page.locator(".sides").get_by_role("link", name="large").last.click()
    expect(page).to_have_url(re.compile(second))


def test_a_trace_is_named_and_copied(place, tab):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.goto("/")
    made = tab.page.evaluate(
        """async ([trace, token]) => (await (await fetch("/api/v1/flows/fails/run?wait=5", {method: "POST", body: "{}",
        headers: {traceparent: `00-${trace}-00f067aa0ba902b7-01`, "X-Form-Token": token}})).json()).id""",
        [trace, tab.page.locator("[name=form_token]").first.input_value()],
    )
    tab.page.goto(f"/executions/{made}")
    expect(tab.page.locator(".facts")).to_contain_text(trace)
    tab.page.get_by_role("button", name="Copy the trace id").click()
    expect(tab.page.get_by_role("button", name="Copy the trace id")).to_have_text("Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()") == trace
    link = tab.page.get_by_role("link", name="See the trace")
    assert link.get_attribute("href") == f"https://traces.example/trace/{trace}?execution={made}"
    shown = [sys.executable, "-m", "headrace", "--state", str(place.daemon.state), "show", made]
    told = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    assert f"https://traces.example/trace/{trace}?execution={made}" in told.replace("\n", "").replace(" ", "")


def test_failures_are_news_until_somebody_acknowledges_them(place, tab):
    page = tab.page
    place.daemon.run("fails")
    failed = place.daemon.run("fails")
    page.goto(f"/executions/{failed['id']}")
    badge = page.locator("nav .count").filter(has_text="nobody acknowledged")
    before = int(badge.inner_text().split()[0])
    assert before >= 2
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
    expect(badge).to_have_text(re.compile(rf"^{before - 1}\b"))
    page.goto("/")
    page.locator(".figures").get_by_role("link", name=str(before - 1), exact=True).click()
    expect(page.locator("main tbody tr")).to_have_count(before - 1)
    page.get_by_role("button", name="Acknowledge these").click()
    expect(page.locator(".empty")).to_contain_text("Nothing matches")
    expect(badge).to_have_count(0)


def test_a_token_is_made_shown_once_used_and_revoked(place, tab):
    page = tab.page
    page.goto("/access")
    page.fill("#name", "a reader")
    page.select_option("#role", "viewer")
    page.fill("#flows", "talks\nfails")
    page.get_by_role("button", name="Make it").click()
    secret = page.locator("#secret").inner_text()
    page.goto("/access")
    assert secret not in page.content()
    row = page.locator("main tbody tr", has_text="a reader")
    expect(row).to_contain_text("talks, fails")
    reader = chromium.Tab(place.browser, place.daemon.url, secret)
    reader.page.goto("/flows")
    assert reader.page.locator("main tbody .name").all_inner_texts() == ["fails", "talks"]
    assert [name.split()[0] for name in reader.page.locator("nav a").all_inner_texts()] == [
        *("Overview", "Flows", "Executions", "Messages", "Tasks", "Workers")
    ]
    reader.page.goto("/flows/talks")
    expect(reader.page.get_by_role("button", name="Run", exact=True)).to_have_count(0)
    row.get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    reader.page.goto("/flows")
    reader.page.wait_for_url("**/login?**")
    reader.close()
    page.fill("#name", "admin")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be the name of a token")
    page.goto("/audit")
    page.fill("#q", "/access")
    page.fill("#who", "admin")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("main tbody tr")).to_have_count(3)
    page.check("[name=refused]")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("main tbody tr")).to_have_count(1)
    tab.wrong = [one for one in tab.wrong if "400" not in one]


def test_what_waits_can_be_cancelled(tab):
    tab.page.goto("/flows/waits")
    tab.page.get_by_role("button", name="Run", exact=True).click()
    tab.page.get_by_role("button", name="Cancel").click()
    ended(tab, "Cancelled")


def test_lists_keep_up_with_what_happens(place, tab):
    tab.page.goto("/executions?flow=fails")
    count = tab.page.locator("main tbody tr").count()
    place.daemon.run("fails")
    expect(tab.page.locator("main tbody tr")).to_have_count(count + 1)


def test_keys_lead_to_pages_and_to_the_search(tab):
    page = tab.page
    page.keyboard.press("g")
    page.keyboard.press("f")
    page.wait_for_url("**/flows")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.locator("h1").click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_everything_is_reached_with_tab_and_seen_when_it_is(place, tab):
    page = tab.page
    execution = place.daemon.run("fails")["id"]
    for path in ("/executions", f"/executions/{execution}", "/flows/declared", "/files"):
        page.goto(path)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
        wanted = page.locator("main :is(a, button, summary, input:not([type=hidden]), select):visible").count()
        page.keyboard.press("Enter")
        reached = set()
        for _ in range(400):
            page.keyboard.press("Tab")
            at = page.evaluate(FOCUSED)
            if at is None or at["n"] in reached:
                break
            assert at["seen"], f"{path}: {at['html']} does not show that it has the focus"
            reached.add(at["n"])
        assert len(reached) >= wanted, f"{path}: {len(reached)} of {wanted} are reached"


def test_tab_leads_out_of_the_editor_after_escape(tab):
    page = tab.page
    page.goto("/edit")
    page.locator(".editor .cm-content").first.click()
    page.keyboard.press("Tab")
    expect(page.locator(".editor .cm-content").first).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(page.get_by_label("What the commit says")).to_be_focused()
    tab.page.on("dialog", lambda dialog: dialog.accept())


def test_files_are_uploaded_several_at_once(place, tab):
    tab.page.goto("/files")
    files = [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"x" * n} for n in (10, 20)]
    tab.page.set_input_files("#upload", files)
    tab.page.get_by_role("button", name="Upload").click()
    expect(tab.page.locator("main tbody tr")).to_have_count(2)
    assert tab.page.locator("main tbody .number").all_inner_texts() == ["10 bytes", "20 bytes"]
    assert place.daemon.client.file("20.txt") == b"x" * 20


def test_a_setting_is_changed_as_yaml(place, tab):
    place.daemon.client.keep("settings", "limits", {"value": {"a": 1}})
    tab.page.goto("/settings/limits")
    tab.page.locator(".cm-content").click()
    tab.page.keyboard.press(SELECT_ALL)
    tab.page.keyboard.insert_text("a: 2\nb:\n- x\n")
    tab.page.get_by_role("button", name="Save").click()
    expect(tab.page.locator("h1")).to_have_text("limits")
    tab.page.wait_for_load_state()
    assert place.daemon.client.kept_one("settings", "limits")["value"] == {"a": 2, "b": ["x"]}


def test_what_is_no_yaml_is_told_at_its_line(place, tab):
    place.daemon.client.keep("settings", "quota", {"value": {"a": 1}})
    tab.page.goto("/settings/quota")
    tab.page.locator(".cm-content").click()
    tab.page.keyboard.press(SELECT_ALL)
    tab.page.keyboard.insert_text("a: 2\nb: [1, 2\nc: 3\n")
    expect(tab.page.locator(".cm-lint-marker-error")).to_have_count(1)
    tab.page.get_by_role("button", name="Save").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("Line 3")
    expect(tab.page.locator(".cm-activeLine")).to_have_text("c: 3")
    assert place.daemon.client.kept_one("settings", "quota")["value"] == {"a": 1}
    tab.wrong = [one for one in tab.wrong if "400" not in one]


def test_a_task_type_says_how_it_is_called_and_which_connections_there_are(place, tab):
    place.daemon.client.keep("connections", "the forge", {"connection_type": "rest", "value": {"url": "http://x"}})
    tab.page.goto("/connections")
    tab.page.get_by_role("link", name="what REST takes").click()
    expect(tab.page.locator("h1")).to_have_text("REST")
    expect(tab.page.locator("main")).to_contain_text("this.task('REST', url=…)")
    tab.page.get_by_role("link", name="the forge").click()
    expect(tab.page.locator("section:target h2")).to_have_text("the forge")


@pytest.fixture(scope="module")
def pages(place):
    """A page of every kind, with something on it."""
    run = place.daemon.run
    first, second = run("talks")["id"], run("talks")["id"]
    guarded, waiting = run("guards")["id"], place.daemon.client.run("asks")["id"]
    large = place.daemon.client.executions(parent=guarded)["items"][0]["id"]
    place.daemon.client.create_token("somebody", ["viewer"], flows=["talks"])
    return [
        *(
            "/",
            "/flows",
            "/flows/talks",
            "/flows/declared",
            "/flows/broken",
            "/edit",
            "/edit?flow=talks",
            "/flows/talks/history",
            "/executions",
            "/messages",
        ),
        *(f"/executions/{one['id']}" for one in (run("parent"), run("fails"), run("hostile"), run("large"))),
        *(f"/executions/{waiting}", f"/executions/{large}/values?of=outputs&at=/rows", "/audit?refused=on"),
        "/executions?type=FLOW&acknowledged=false&parent=none",
        *(f"/compare?a={first}&b={second}", "/sync", "/settings", "/files", "/connections", "/webhooks", "/schedules"),
        *("/vault_configs", "/locks", "/tasks", "/tasks/REST", "/workers", "/audit"),
        "/access",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_keeps_anybody_out_or_complains_on_a_large_and_a_small_screen(place, pages, scheme):
    tab = place.tab(color_scheme=scheme, bypass_csp=False)
    axe = AXE.read_text()
    # In the dark only colours are others.
    rules = {} if scheme == "light" else {"runOnly": ["color-contrast"]}
    found = []
    for path in pages:
        tab.page.goto(path)
        tab.page.locator(".cm-editor").count()
        tab.page.evaluate(axe)
        for width in (1440, 390) if scheme == "light" else (1440,):
            tab.page.set_viewport_size({"width": width, "height": 900})
            result = tab.page.evaluate("rules => axe.run(document, {resultTypes: ['violations'], ...rules})", rules)
            found += [
                f"{path} at {width}: {violation['id']}: {violation['nodes'][0]['html'][:200]}"
                for violation in result["violations"]
                if violation["impact"] in ("serious", "critical")
            ]
            if scheme == "light":
                wide = tab.page.evaluate("() => document.documentElement.scrollWidth")
                found += [f"{path} is {wide} px wide on a screen of {width}"] if wide > width else []
                found += [f"{path} at {width}: cut: {cut}" for cut in tab.page.evaluate(CUT)]
        found += [f"{path}: {problem}" for problem in tab.page.evaluate(LOOSE_ENDS)]
    assert found == []
    assert tab.wrong == []
    tab.close()


def test_a_former_version_is_looked_at_and_brought_back(place, tab):
    client = place.daemon.client
    client.save_flow("remembered", "def handler(system, this):\n    return 'first'\n", message="The first of them")
    client.save_flow("remembered", "def handler(system, this):\n    return 'second'\n", message="Another one")
    tab.page.goto("/flows/remembered")
    tab.page.click("text=History")
    assert tab.page.locator("main tbody tr").count() == 2
    tab.page.click("main tbody tr:nth-child(1) a")
    assert "-    return 'first'" in tab.page.inner_text(".diff .removed")
    assert "+    return 'second'" in tab.page.inner_text(".diff .added")
    assert not tab.page.locator("text=Bring this version back").count()
    tab.page.click("main tbody tr:nth-child(2) a")
    tab.page.click("text=Bring this version back")
    tab.page.wait_for_url("**/flows/remembered")
    assert "return 'first'" in place.committed("remembered.py")
    assert place.daemon.run("remembered")["output_value"] == "first"
    tab.page.goto("/flows")  # or the page of the flow, which is live, would ask for what is not there any more
    client.delete_flow("remembered")
    tab.page.goto("/flows/remembered/history")
    assert "Deleted" in tab.page.inner_text("main")


def test_what_flows_say_of_themselves_stands_among_schedules_and_webhooks(place, tab):
    tab.page.goto("/schedules")
    row = tab.page.locator("main tbody tr", has_text="at night")
    assert "Europe/Vienna" in row.inner_text()
    assert row.locator("td").nth(2).inner_text().count("02:30") == 5, "the next five, in its zone"
    tab.page.goto("/webhooks")
    row = tab.page.locator("main tbody tr", has_text="at night")
    assert "POST /webhook/now" in row.inner_text() and "github" in row.inner_text()

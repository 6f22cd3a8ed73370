"""The pages of a real daemon, as a browser without script meets them: log in, look, run; hostile text stays text."""

import html
import html.parser
import http.cookiejar
import json
import re
import stat
import urllib.error
import urllib.parse
import urllib.request

import pytest

from tests.support.daemons import until

HOSTILE = "<img src=x onerror=alert(1)>"
SHOUT = "<script>alert(2)</script>"


class Page(html.parser.HTMLParser):
    """A page as far as tests look at it: links, forms with their fields, and which elements there are."""

    def __init__(self, status, url, headers, text):
        super().__init__()
        self.status, self.url, self.headers, self.text = status, url, headers, text
        self.links, self.forms, self.elements, self.ids, self.refresh = [], [], set(), [], ""
        if headers.get_content_type() == "text/html":
            self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "script" and given.get("src", "").startswith("/assets/") and set(given) == {"type", "src"}:
            return  # the one of ours; the policy allows no other
        self.elements.add(tag)
        assert not [name for name in given if name.startswith("on") or name == "style"], (tag, attrs)
        if "id" in given:
            self.ids.append(given["id"])
        if tag in ("a", "link") and not given["href"].startswith("data:"):
            self.links.append(given["href"])
        if tag == "form":
            self.forms.append((given.get("action", ""), {}))
        if tag == "input" and "name" in given:
            self.forms[-1][1][given["name"]] = given.get("value", "")
        if tag == "meta" and given.get("http-equiv") == "refresh":
            self.refresh = given["content"]

    def form(self, ending):
        return next(form for form in self.forms if form[0].endswith(ending))


class Browser:
    """Follows redirects, keeps cookies, and says where its forms come from."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def open(self, path, form=None, headers=None, accept="text/html"):
        url = urllib.parse.urljoin(self.daemon.url, path)
        data = None if form is None else urllib.parse.urlencode(form).encode()
        sent = {"Accept": accept} | ({"Origin": self.daemon.url} if form is not None else {}) | (headers or {})
        try:
            answer = self._opener.open(urllib.request.Request(url, data, sent), timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return Page(answer.status, answer.url, answer.headers, answer.read().decode())

    def send(self, page, ending, **fields):
        action, hidden = page.form(ending)
        return self.open(action, hidden | fields)

    def logged_in(self):
        page = self.send(self.open("/login"), "/login", token=self.daemon.token())
        assert page.status == 200 and urllib.parse.urlsplit(page.url).path == "/"
        return self


@pytest.fixture(scope="module")
def flows(workshop):
    workshop.write("square.py", "def handler(system, this, inputs):\n    return {'square': inputs['n'] ** 2}\n")
    workshop.write(
        "parent.py",
        "def handler(system, this, inputs):\n"
        "    this.flow('square', n=3)\n"
        "    return this.success('the child is done')\n",
    )
    workshop.write("fails.py", "def handler(system, this):\n    raise ValueError('no')\n")
    workshop.write(
        "fans out.py",
        "def handler(system, this, inputs):\n"
        "    children = [this.flow(inputs.get('child', 'fails'), wait=False) for _ in range(inputs['many'])]\n"
        "    this.wait_for(*children, return_when=system.return_when.ALL_ENDED)\n"
        "    raise ValueError('all of them')\n",
    )
    workshop.write("waits.py", "def handler(system, this):\n    this.sleep(600)\n")
    workshop.write("never good.py", "def handler(system, this)\n    pass\n")
    workshop.write(
        f"folder/{HOSTILE}.py",
        f"def handler(system, this):\n"
        f"    print('\\x1b[31mred\\x1b[0m {SHOUT}')\n"
        f"    this.log('{SHOUT}', {{'{SHOUT}': 1}})\n"
        f"    this.set_output('{SHOUT}', '{SHOUT}')\n"
        f"    this.save(message='{SHOUT}')\n"
        f"    raise ValueError('{SHOUT}')\n",
    )
    workshop.daemon.client.sync()
    return workshop


@pytest.fixture
def browser(flows):
    return Browser(flows.daemon).logged_in()


@pytest.fixture
def stranger(flows):
    return Browser(flows.daemon)


def path_of(page):
    return urllib.parse.urlsplit(page.url).path


def test_the_printed_link_logs_in_once_and_looking_at_it_uses_nothing_up(make_daemon, tmp_path):
    (tmp_path / "flows").mkdir()
    daemon = make_daemon(tmp_path / "flows").start()
    link = until(lambda: re.search(r"open (http://\S+/login\?token=\S+)", daemon.log.read_text()), "the link")[1]
    kept = daemon.state / "login-link"
    assert kept.read_text().strip() == link and stat.S_IMODE(kept.stat().st_mode) == 0o600
    log_lines = [line for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    assert not any(link.partition("=")[2] in line for line in log_lines)
    first, second = Browser(daemon), Browser(daemon)
    looked = [first.open(link), first.open(link), second.open(link)]
    assert {page.status for page in looked} == {200} and not first.jar
    home = first.send(looked[0], "/login")
    assert (home.status, path_of(home)) == (200, "/") and "There is no flow yet" in home.text
    assert first.open(link).url == home.url  # whoever is in is sent on
    refused = second.send(looked[2], "/login")
    assert refused.status == 401 and "used before" in refused.text and not second.jar


def test_under_a_service_manager_the_link_is_only_in_the_file(make_daemon, tmp_path):
    (tmp_path / "flows").mkdir()
    daemon = make_daemon(tmp_path / "flows")
    daemon.environment["INVOCATION_ID"] = "x"
    daemon.start()
    until((daemon.state / "login-link").exists, "the link")
    assert daemon.stop() == 0
    assert "token=" not in daemon.log.read_text()


def test_the_cookie_is_for_this_site_and_out_of_reach_of_scripts(browser):
    (cookie,) = browser.jar
    assert cookie.path == "/" and cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "Strict" and not cookie.secure


def test_behind_a_proxy_the_cookie_is_for_https_and_this_host_alone(make_daemon, tmp_path):
    (tmp_path / "flows").mkdir()
    daemon = make_daemon(tmp_path / "flows")
    daemon.environment["HEADRACE_LISTEN__BEHIND_PROXY"] = "true"
    daemon.start()
    form = urllib.parse.urlencode({"token": daemon.token()}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    request = urllib.request.Request(daemon.url + "/login", form, headers)
    no_redirects = urllib.request.build_opener(NoRedirects())
    with pytest.raises(urllib.error.HTTPError) as caught:
        no_redirects.open(request)
    with caught.value as answer:
        cookie = answer.headers["Set-Cookie"]
    assert answer.status == 303 and cookie.startswith("__Host-headrace=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def test_a_stranger_is_sent_to_the_login_and_then_to_where_they_wanted(stranger):
    for path in ("/", "/flows/square", "/executions?status=RUNNING", "/executions/x", "/sync", "/api/v1/flows"):
        assert path_of(stranger.open(path)) == "/login"
    page = stranger.send(stranger.open("/executions?status=RUNNING"), "/login", token=stranger.daemon.token())
    assert page.url.endswith("/executions?status=RUNNING")


def test_a_stranger_who_is_no_browser_gets_a_problem(stranger):
    page = stranger.open("/api/v1/flows", accept="*/*")
    assert (page.status, page.headers["Content-Type"]) == (401, "application/problem+json")


def test_after_logging_out_the_old_cookie_is_worth_nothing(browser):
    (cookie,) = browser.jar
    assert path_of(browser.send(browser.open("/"), "/logout")) == "/login"
    assert not browser.jar
    browser.jar.set_cookie(cookie)
    assert path_of(browser.open("/")) == "/login"


def test_a_restart_logs_everybody_out(flows, browser):
    flows.daemon.kill()
    flows.daemon.start()
    assert path_of(browser.open("/")) == "/login"


@pytest.mark.parametrize(
    ("headers", "spoil"),
    [
        ({"Origin": "https://evil.example"}, {}),
        ({"Origin": "null"}, {}),
        ({"Sec-Fetch-Site": "cross-site"}, {}),
        ({}, {"form_token": "0" * 64}),
        ({}, {"form_token": ""}),
    ],
)
def test_forms_from_elsewhere_do_nothing(flows, browser, headers, spoil):
    before = len(flows.daemon.lines())
    for address, ending in (("/flows/square", "/run"), ("/sync", "/sync"), ("/sync", "/logout")):
        action, fields = browser.open(address).form(ending)
        page = browser.open(action, fields | {"inputs": "{}"} | spoil, headers)
        assert page.status == 403 and "Not allowed" in page.text
    assert browser.open("/").status == 200 and len(flows.daemon.lines()) == before


def test_a_login_from_elsewhere_is_refused_and_leaves_the_token_alone(stranger):
    token = stranger.daemon.token()
    assert stranger.open("/login", {"token": token}, {"Origin": "https://evil.example"}).status == 403
    assert stranger.open("/login", {"token": "wrong"}).status == 401
    assert not stranger.jar


def test_the_api_takes_the_cookie_for_reading_and_for_more_only_with_the_form_token(browser):
    assert browser.open("/api/v1/flows", accept="*/*").status == 200
    token = browser.open("/").form("/logout")[1]["form_token"]
    address = browser.daemon.url + "/api/v1/flows/idle/run"
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.jar)
    for extra, expected in (
        ({}, 403),
        ({"Origin": browser.daemon.url}, 403),
        ({"X-Form-Token": token}, 403),
        ({"X-Form-Token": token, "Origin": "null"}, 403),
        ({"X-Form-Token": token, "Origin": browser.daemon.url}, 202),
    ):
        path = urllib.parse.urlsplit(address).path
        headers = {"Cookie": cookie, "Content-Type": "application/json"} | extra
        assert browser.daemon.raw("POST", path, {}, headers)[0] == expected, extra


def test_a_wrong_bearer_token_is_not_saved_by_a_cookie(browser):
    assert browser.open("/api/v1/flows", headers={"Authorization": "Bearer wrong"}, accept="*/*").status == 401


def test_running_from_the_page_leads_to_the_execution(browser):
    page = browser.open("/flows/square")
    shown = browser.send(page, "/run", inputs='{"n": 12}')
    assert path_of(shown).startswith("/executions/")
    done = until(lambda: (p := browser.open(shown.url)) and not p.refresh and p, "the end")
    assert "Succeeded" in done.text and "&#34;square&#34;: 144" in re.sub("<[^>]*>", "", done.text)
    again = browser.open(next(link for link in done.links if "like=" in link))
    assert "&#34;n&#34;: 12" in again.text
    assert path_of(browser.send(page, "/run", inputs='{"n": 12}')) == path_of(shown), "the same form runs once"


@pytest.mark.parametrize("inputs", ["{not json", "[1]", "null"])
def test_inputs_that_cannot_be_used_come_back_to_be_mended(flows, browser, inputs):
    page = browser.send(browser.open("/flows/square"), "/run", inputs=inputs)
    assert page.status == 400 and "Nothing has run" in page.text and html.escape(inputs) in page.text


def test_a_page_reloads_until_its_execution_has_ended_and_offers_to_cancel_it(browser):
    shown = browser.send(browser.open("/flows/waits"), "/run")
    waiting = until(lambda: (p := browser.open(shown.url)) and "Waiting" in p.text and p, "it waits")
    assert waiting.refresh == f"2; url={urllib.parse.urlsplit(shown.url).path}"
    assert not browser.open(shown.url + "?still").refresh
    assert "Cancelled" not in waiting.text
    browser.send(waiting, "/cancel")
    ended = until(
        lambda: (p := browser.open(shown.url)) and "Cancelled" in p.text and not p.refresh and p, "it is cancelled"
    )
    assert not ended.refresh and not [form for form in ended.forms if form[0].endswith("/cancel")]
    assert browser.open(shown.url + "/cancel", dict(ended.form("/logout")[1])).status == 200  # too late is no error


def test_a_broken_flow_is_shown_with_its_reason_at_the_line(flows, browser):
    page = browser.open("/flows/never%20good")
    assert "Broken" in page.text and "never good.py:1" in page.text and 'class="fault" id="L1"' in page.text
    assert not [form for form in page.forms if form[0].endswith("/run")]
    flows.write("mended.py", "def handler(system, this):\n    return 1\n")
    flows.daemon.client.sync()
    flows.write("mended.py", "def handler(system, this):\n    return 1\n\n)\n")
    flows.daemon.client.sync()
    page = browser.open("/flows/mended")
    assert 'class="fault" id="L4"' in page.text and "The version that runs" in page.text
    assert browser.send(page, "/run").status == 200


def test_what_flows_say_stays_text(flows, browser):
    name = f"folder/{HOSTILE}"
    execution = flows.daemon.run(name)["id"]
    segment = urllib.parse.quote(name, safe="")
    bad_filter = "/executions?" + urllib.parse.urlencode({"q": SHOUT, "flow": HOSTILE})
    pages = [
        browser.open(path)
        for path in (
            "/",
            f"/?q={urllib.parse.quote(SHOUT)}",
            f"/flows/{segment}",
            f"/executions/{execution}",
            "/executions",
            bad_filter,
            f"/flows/{urllib.parse.quote(SHOUT)}",
            f"/executions/{urllib.parse.quote(SHOUT, safe='')}",
            f"/executions?status={urllib.parse.quote(SHOUT)}",
            f"/{urllib.parse.quote(SHOUT)}",
        )
    ]
    for page in pages:
        assert not page.elements & {"script", "img", "iframe", "object", "style"}, page.url
        assert SHOUT not in page.text and HOSTILE not in page.text
    shown = pages[3].text
    assert (
        shown.count(html.escape(SHOUT)) >= 6
        and '<span class="ansi-red">red</span> &lt;script&gt;' in shown
        and "\x1b" not in shown
    )


def test_every_link_leads_somewhere_and_every_page_carries_the_policy(flows, browser):
    flows.daemon.run("parent")
    waiting = flows.daemon.client.run("waits", {})["id"]
    flows.daemon.run(f"folder/{HOSTILE}")
    seen, ahead, places = {}, [browser.daemon.url], set()
    while ahead:
        address, place = urllib.parse.urldefrag(ahead.pop())
        places.add((address, place))
        if address in seen or len(seen) > 150:
            continue
        page = seen[address] = browser.open(address)
        assert page.status == 200, address
        assert path_of(page) != "/login", address
        if page.headers.get_content_type() == "text/html":
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]
            assert page.headers["X-Content-Type-Options"] == "nosniff"
            assert page.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert page.headers["Cache-Control"] == "no-store"
            assert len(page.ids) == len(set(page.ids)), address
            ahead += [urllib.parse.urljoin(address, link) for link in page.links]
    assert not [(a, place) for a, place in places if place and a in seen and place not in seen[a].ids]
    paths = {path_of(page) for page in seen.values()}
    assert {"/", "/sync", "/executions", "/flows/parent", "/style.css"} <= paths
    assert len([path for path in paths if path.startswith("/executions/")]) >= 3
    flows.daemon.client.cancel(waiting)


def test_what_failed_or_goes_on_is_not_hidden_behind_the_many_that_it_started(flows, browser):
    failed = flows.daemon.run("fans out", many=250)["id"]
    children = flows.daemon.client.all_executions(limit=300, parent=failed)
    assert {one["status"] for one in children} == {"ENDED_ERROR"} and len(children) == 250
    waiting = flows.daemon.client.run("fans out", {"many": 250, "child": "waits"})["id"]
    until(lambda: len(flows.daemon.client.all_executions(limit=300, parent=waiting)) == 250, "all are started")
    page = browser.open("/")
    news = next(link for link in page.links if "acknowledged=false" in link)
    assert {f"/executions/{failed}", f"/executions/{waiting}"} <= set(page.links)
    assert "the last 60 runs" in page.text, "with children, as the runs in 24 hours beside it"
    listed = browser.open(news)
    assert f"/executions/{failed}" in listed.links
    assert not {f"/executions/{one['id']}" for one in children} & set(listed.links)
    seen = browser.send(listed, "/acknowledge")
    assert "Nothing matches" in seen.text and urllib.parse.urlsplit(seen.url).query == urllib.parse.urlsplit(news).query
    assert len(flows.daemon.client.executions(acknowledged="false", limit=200)["items"]) == 200, "the children are not"
    flows.daemon.client.pause(waiting)
    until(lambda: flows.daemon.client.execution(waiting)["status"] == "PAUSED", "it stands still")
    assert f"/executions/{waiting}" in browser.open("/").links
    flows.daemon.client.cancel(waiting)


def test_listings_are_filtered_and_paged(browser):
    for _ in range(3):
        browser.daemon.run("idle")
    page = browser.open("/executions?flow=idle&status=ENDED_SUCCESS&status=ENDED_ERROR&q=&type=&limit=1")
    older = next(link for link in page.links if "cursor=" in link)
    assert "flow=idle" in older and "limit=1" in older and older.count("status=") == 2
    assert next(link for link in browser.open(older).links if "cursor=" in link).count("cursor=") == 1
    following = browser.open(older)
    assert following.status == 200 and "Newest" in following.text
    assert "Nothing matches" in browser.open("/executions?flow=nobody").text
    assert browser.open("/executions?status=NOTHING").status == 400


@pytest.mark.parametrize("path", ["/nowhere", "/flows/nowhere", "/executions/nowhere"])
def test_what_is_not_there_is_a_page_for_people_and_a_problem_for_programs(browser, path):
    page = browser.open(path)
    assert page.status == 404 and "Not found" in page.text and "Content-Security-Policy" in page.headers
    page = browser.open(path, accept="application/json")
    assert page.status == 404 and json.loads(page.text)["title"] == "Not found"


def test_the_style_sheet_is_public_and_kept_by_its_tag(stranger):
    page = stranger.open("/style.css")
    assert page.status == 200 and page.headers.get_content_type() == "text/css"
    assert stranger.open("/style.css", headers={"If-None-Match": page.headers["ETag"]}).status == 304

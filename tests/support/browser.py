"""A browser without script: keeps cookies, follows redirects, fills in forms."""

from __future__ import annotations

import html.parser
import http.cookiejar
import urllib.error
import urllib.parse
import urllib.request


class Forms(html.parser.HTMLParser):
    """The forms of a page: where they go and what they hold when nobody types anything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str], list[str]]] = []  # action, fields, names of buttons
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take up forms and what they hold."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((given.get("action", ""), {}, []))
        elif tag in ("input", "textarea", "select") and "name" in given:
            self.found[-1][1][given["name"]] = given.get("value", "")
        elif tag == "button" and "name" in given:
            self.found[-1][2].append(given["name"])


class Browser:
    """Talks to one daemon."""

    def __init__(self, url: str, *handlers: urllib.request.BaseHandler) -> None:
        self.url = url
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies, *handlers)

    def logged_in(self, token: str) -> Browser:
        """Log in and return the browser."""
        self.submit(self.get("/login"), {"token": token})
        return self

    def get(self, path: str, form: dict[str, str] | None = None) -> str:
        """Open a page, or send a form, and return the page's text; fails for anything but a page."""
        status, text = self.send(path, form)
        assert status == 200, f"{path}: {status} {text[:500]}"
        return text

    def send(self, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
        """The same, whatever comes back."""
        data = None if form is None else urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(
            urllib.parse.urljoin(self.url, path), data, {"Accept": "text/html", "Origin": self.url}
        )
        try:
            with self._opener.open(request, timeout=30) as answer:
                return answer.status, str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, str(error.read().decode())

    def submit(self, page: str, typed: dict[str, str]) -> str:
        """Fill in the form of ``page`` that has these fields and send it with its first button."""
        action, fields, buttons = next(form for form in Forms(page).found if typed.keys() <= form[1].keys())
        return self.get(action, fields | typed | dict.fromkeys(buttons[:1], "true"))

"""Text that wants to be more than text, wherever people can put some: on no page does anything of it run."""

import contextlib
import json

import pytest

from headrace.engine import errors
from tests.support.daemons import until
from tests.support.repositories import WorkingRepository, git

CALL = "window.hit.push(1)"
PAYLOADS = [
    f"<script>{CALL}</script>",
    f"</script><script>{CALL}</script>",
    f"</style><script>{CALL}</script>",
    f"</textarea><script>{CALL}</script>",
    f"</title><script>{CALL}</script>",
    f"--><script>{CALL}</script>",
    f"<img src=x onerror={CALL}>",
    f"<img/src=x/onerror={CALL}//",
    f"<svg onload={CALL}>",
    f"<svg><script>{CALL}</script></svg>",
    f"<svg><animate onbegin={CALL} attributeName=x>",
    f"<body onload={CALL}>",
    f"<details open ontoggle={CALL}>x",
    f"<input autofocus onfocus={CALL}>",
    f"<iframe srcdoc='<script>parent.{CALL}</script>'>",
    f"<iframe src=javascript:{CALL}>",
    f"<object data=javascript:{CALL}>",
    f"<embed src=javascript:{CALL}>",
    f"<a href=javascript:{CALL} autofocus>x</a>",
    f"<form action=javascript:{CALL}><button autofocus>x",
    f"<math><mtext></p><img src=x onerror={CALL}>",
    f"<template><img src=x onerror={CALL}></template>",
    f"<video><source onerror={CALL}>",
    f"<audio src=x onerror={CALL}>",
    f"<marquee onstart={CALL}>",
    f"<meta http-equiv=refresh content='0;url=javascript:{CALL}'>",
    f"<base href='javascript:{CALL}//'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css';</style>",
    f'" autofocus onfocus={CALL} x="',
    f"' autofocus onfocus={CALL} x='",
    f"` onfocus={CALL} `",
    f'" style="background:url(javascript:{CALL})" x="',
    f'x" onmouseover="{CALL}',
    f"javascript:{CALL}",
    f"JaVaScRiPt&#58;{CALL}",
    f"data:text/html,<script>parent.{CALL}</script>",
    f"&lt;script&gt;{CALL}&lt;/script&gt;",
    f"&#60;img src=x onerror={CALL}&#62;",
    f"\\u003cscript\\u003e{CALL}\\u003c/script\\u003e",
    f"%3Cscript%3E{CALL}%3C/script%3E",
    f"{{{{constructor.constructor('{CALL}')()}}}}",
    f"${{{CALL}}}",
    "{% raw %}{{ 7 * 7 }}",
    f"\x1b]8;;javascript:{CALL}\x1b\\link\x1b]8;;\x1b\\",
    f"\x1b[31m<img src=x onerror={CALL}>\x1b[0m",
    f"\x1b]0;<script>{CALL}</script>\x07",
    f"\u202e<script>{CALL}</script>",
    f"\ufeff<script>{CALL}</script>",
    f"<scr\x00ipt>{CALL}</scr\x00ipt>",
    f"<<script>{CALL}//<</script>",
    f"<img src=x:x onerror\n=\n{CALL}>",
    f"<x onclick={CALL} tabindex=1 id=x>#x",
    f"]]><script>{CALL}</script>",
    f"<!--[if true]><script>{CALL}</script><![endif]-->",
    f"'-{CALL}-'",
    f'";{CALL};//',
    f"</pre></code><img src=x onerror={CALL}>",
    f"</svg></table><img src=x onerror={CALL}>",
    f"data: x\n\nevent: end\ndata: <img src=x onerror={CALL}>\n\n",
]
HOSTILE = f"""
PAYLOADS = {json.dumps(PAYLOADS)}
def handler(system, this, inputs):
    for text in PAYLOADS:
        print(text)
        this.log(text, **{{'given': text}})
    this.set_output('values', PAYLOADS)
    this.set_output('keys', dict.fromkeys(PAYLOADS, 1))
    this.save(name=' '.join(PAYLOADS)[:900], message=' '.join(PAYLOADS)[-900:])
    for text in PAYLOADS[:10]:
        try:
            this.flow(text)
        except Exception as error:
            this.log(str(error))
        try:
            this.step(text, lambda: text)
        except Exception as error:
            this.log(str(error))
    if inputs.get('fail'):
        raise ValueError(' '.join(PAYLOADS))
    return {{'left': PAYLOADS}}
"""
ASKS = f"""
PAYLOADS = {json.dumps(PAYLOADS)}
def handler(system, this):
    this.message(' '.join(PAYLOADS)[:1000], body={{'type': 'object', 'properties': {{
        **{{f'f{{n}}': {{'element': 'string', 'type': 'string', 'label': text, 'description': text, 'default': text}}
           for n, text in enumerate(PAYLOADS)}},
        'go': {{'element': 'submit', 'type': 'boolean', 'label': PAYLOADS[0]}}}}}})
"""
DECLARES = """# /// script
# [tool.headrace.input_schema.properties]
{}
# ///
def handler(system, this, inputs):
    return inputs
"""
WATCHED = f"window.hit = []; for (const name of ['alert', 'confirm', 'prompt', 'print']) window[name] = () => {CALL};"


@pytest.fixture(scope="module")
def pages(place):
    """Put the payloads wherever there is room for text, and return the pages that show them."""
    client = place.daemon.client
    work = WorkingRepository(place.upstream.parent / "hostile")
    git(work.directory, "pull", "--quiet", str(place.upstream), "main")
    (work.directory / "hostile text.py").write_text(HOSTILE)
    (work.directory / "asks hostile.py").write_text(ASKS)
    told = [json.dumps(text) for text in PAYLOADS if text.isprintable() and text.isascii()]
    keys = [f"# {text} = {{title = {text}, description = {text}, enum = [{text}, 1]}}" for text in told]
    (work.directory / "declares hostile.py").write_text(DECLARES.format("\n".join(keys)))
    names = [
        text for text in PAYLOADS if "/" not in text and "\0" not in text and "\n" not in text and text.isprintable()
    ]
    for n, text in enumerate(names[:12]):
        (work.directory / f"{n} {text[:100]}.py").write_text(f"# {text}\ndef handler(system, this):\n    return (\n")
    (work.directory / "settings").mkdir(exist_ok=True)
    (work.directory / "settings" / "hostile.yaml").write_text(json.dumps(PAYLOADS))
    (work.directory / "settings" / "broken <img src=x onerror=alert(1)>.yaml").write_text("a: [<script>")
    git(work.directory, "add", "--all")
    author = f"{PAYLOADS[0]} <{PAYLOADS[6]}@example.org>".replace("<script>", "(script)")
    git(work.directory, "commit", "--quiet", "--message", "\n".join(PAYLOADS).replace("\0", ""), "--author", author)
    git(work.directory, "push", "--quiet", str(place.upstream), "HEAD:main")
    client.sync()
    assert client.flow("declares hostile")["broken"] is None
    taken = 0
    for n, text in enumerate(PAYLOADS):
        client.keep(
            "connections", f"hostile {n}", {"connection_type": "REST", "value": {"url": text}, "description": text}
        )
        with contextlib.suppress(errors.HeadraceError):  # a name has no control characters
            client.keep("settings", f"hostile {n} {text}", {"value": {text: text}, "description": text})
            client.save_file(f"hostile {n} {text}".replace("/", "∕"), text.encode())
            taken += 1
    assert taken > 45
    client.create_token(f"{PAYLOADS[6]}"[:50], ["viewer"])
    ended = client.wait(client.run("hostile text", {text: text for text in PAYLOADS})["id"], 60)
    failed = client.wait(client.run("hostile text", {"fail": PAYLOADS})["id"], 60)
    assert (ended["status"], failed["status"]) == ("ENDED_SUCCESS", "ENDED_ERROR"), ended["error"]
    asking = client.run("asks hostile")["id"]
    message = until(lambda: [m for m in client.messages(pending=True) if m["execution_id"] == asking], "it asks")[0]
    yield [
        *(
            "/",
            "/flows",
            "/executions",
            "/messages",
            "/sync",
            "/settings",
            "/files",
            "/connections",
            "/audit",
            "/access",
        ),
        *(f"/executions/{ended['id']}", f"/executions/{failed['id']}", f"/executions/{asking}"),
        *(f"/messages/{message['id']}", f"/compare?a={ended['id']}&b={failed['id']}", "/flows/hostile%20text"),
        *("/flows/declares%20hostile", f"/flows/declares%20hostile?like={ended['id']}"),
        *(f"/executions/{ended['id']}/values?of={of}" for of in ("inputs", "outputs")),
        f"/executions/{ended['id']}/values?of=inputs&at=%22%3E%3Cscript%3Ewindow.hit.push(1)%3C/script%3E",
        "/audit?q=%22%3E%3Cscript%3Ewindow.hit.push(1)%3C/script%3E&who=%22%20onfocus=window.hit.push(1)%20autofocus",
        *("/edit?flow=hostile%20text", "/settings/hostile", "/login?next=javascript:window.hit.push(1)"),
        "/flows?q=" + "%22%3E%3Cscript%3Ewindow.hit.push(1)%3C/script%3E",
        "/executions?q=%22%20onfocus=window.hit.push(1)%20autofocus%20x=%22",
        "/flows/%3Cimg%20src=x%20onerror=window.hit.push(1)%3E",
    ]
    client.cancel(asking)


def test_no_text_is_more_than_text_on_any_page(place, pages):
    tab = place.tab()
    tab.context.add_init_script(WATCHED)
    requested = []
    tab.page.on("request", lambda request: requested.append(request.url))
    for path in pages:
        tab.page.goto(path)
        tab.page.evaluate("document.querySelectorAll('main details').forEach(one => one.open = true)")
        tab.page.wait_for_timeout(150)  # for what loads late
        told = tab.page.evaluate(
            """() => ({
              hit: window.hit.length,
              handlers: [...document.querySelectorAll('*')].filter(one =>
                [...one.attributes].some(each => each.name.startsWith('on'))).length,
              scripts: document.querySelectorAll('script:not([src]), iframe, object, embed, base, body style').length,
              links: [...document.querySelectorAll('a, form')].filter(one =>
                /^(javascript|data):/i.test(one.getAttribute('href') || one.getAttribute('action') || '')).length,
            })"""
        )
        if "/edit" in path:
            told["scripts"] = 0  # the editor brings styles of its own, as the policy lets it
        assert told == {"hit": 0, "handlers": 0, "scripts": 0, "links": 0}, path
    assert not [url for url in requested if not url.startswith((place.daemon.url, "data:image/"))]
    assert [line for line in tab.wrong if "404" not in line] == []
    tab.close()

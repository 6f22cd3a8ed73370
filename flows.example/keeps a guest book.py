# /// script
# [tool.headrace]
# description = "A page with a form, served by a flow"
# webhook = {name = "guests", auth = "none", methods = ["GET", "POST"]}
# ///
"""A webhook that answers with a page. Who signs it is kept in a setting that many may append to at the same time.

Try:  a browser on http://127.0.0.1:8420/webhook/guests
      headrace settings show guests
"""

import html


def handler(system, this, inputs):
    guests = system.setting('guests')
    if inputs['method'] == 'POST' and inputs['json'].get('name'):
        guests.list_append(inputs['json']['name'][:50])
    names = guests.get('value') if guests.exists() else []
    items = ''.join(f'<li>{html.escape(name)}' for name in names)
    form = '<form method="post"><input name="name" placeholder="your name"> <button>Sign</button></form>'
    return this.webhook_html_response(f'<!doctype html><title>Guests</title><h1>Guests</h1><ul>{items}</ul>{form}')

# /// script
# [tool.headrace]
# description = "A page with a form, served by a flow"
# webhook = {name = "guests", auth = "none", methods = ["GET", "POST"]}
# ///
"""A page that a flow serves: what visitors wrote is kept in a setting, one writes at a time.

Try:  open http://127.0.0.1:8420/webhook/guests
      headrace settings show guests
"""

import html


def handler(system, this, inputs):
    guests = system.setting('guests')
    if inputs['method'] == 'POST' and inputs['json'].get('name'):
        with this.lock('guests'):
            guests.list_append(inputs['json']['name'][:50])
    names = guests.get('value') if guests.exists() else []
    items = ''.join(f'<li>{html.escape(name)}' for name in names)
    form = '<form method="post"><input name="name" placeholder="your name"> <button>Sign</button></form>'
    return this.webhook_html_response(f'<!doctype html><title>Guests</title><h1>Guests</h1><ul>{items}</ul>{form}')

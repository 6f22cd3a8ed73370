# /// script
# [tool.headrace]
# description = "Greets whoever calls it"
# webhook = {name = "greet", auth = "none", methods = ["GET", "POST"]}
# ///
"""Called from outside; the caller gets what it set as output. A webhook without credentials is served on loopback only.

Try:  curl 'http://127.0.0.1:8420/webhook/greet?name=Ada'
"""


def handler(system, this, inputs):
    name = inputs['json'].get('name') or inputs['query'].get('name') or 'stranger'
    this.set_output('greeting', f'hello {name}')
    return this.success(f'greeted {name}')

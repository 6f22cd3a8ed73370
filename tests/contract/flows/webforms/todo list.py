"""
A todo list in the browser.

    GET  /            shows the list
    POST /            the form's field "title" adds one
    POST /toggle/<n>  done or not
    POST /clear       forget those that are done
"""
import html

PAGE = '''<!doctype html>
<html><head><title>%(title)s</title></head>
<body>
<h1>%(title)s</h1>
<ul>
%(items)s
</ul>
<form method="post"><input name="title" placeholder="What needs to be done?"><button>add</button></form>
<p>%(open)d open</p>
</body></html>
'''


def render(todos):
    items = '\n'.join(
        '<li class="%s">%s <form method="post" action="toggle/%d"><button>%s</button></form></li>' % (
            'done' if todo['done'] else 'open', html.escape(todo['title']), n, 'again' if todo['done'] else 'done',
        )
        for n, todo in enumerate(todos)
    )
    return PAGE % {'title': 'Things to do', 'items': items, 'open': sum(not t['done'] for t in todos)}


def handler(system, this):
    inputs = this.get('input_value')
    method, path = inputs['method'], inputs['path'].strip('/')
    store = system.setting('todo list')
    store.acquire(timeout=10)
    try:
        todos = store.get('value') if store.exists() else []
        if method == 'POST':
            if path == '':
                title = inputs['json'].get('title', '').strip()
                if not title:
                    return this.webhook_response(400, json={'error': 'a title is needed'})
                todos.append({'title': title, 'done': False})
            elif path == 'clear':
                todos = [t for t in todos if not t['done']]
            elif path.startswith('toggle/'):
                try:
                    todo = todos[int(path.split('/')[1])]
                except (ValueError, IndexError):
                    return this.webhook_response(404, body='there is no such thing to do')
                todo['done'] = not todo['done']
            else:
                return this.webhook_response(404, body='no such page')
            store.save(value=todos)
            if path:
                return this.webhook_response(303, headers={'location': '/webhook/todo'})
        elif inputs['query'].get('format') == 'json':
            return this.webhook_response(json=todos)
    finally:
        store.release()
    return this.webhook_html_response(render(todos))

"""
A slash command of the team's chat: /deploy <what> <version>

The chat sends a form, its token is the webhook's key.
"""
import shlex

USAGE = 'usage: /deploy <service> <version> | /deploy status'


def handler(system, this, inputs):
    form = inputs['json']
    this.log('from the chat', user=form.get('user_name'), text=form.get('text'), type=inputs['headers']['Content-Type'])
    history = system.setting('chat deployments')
    try:
        words = shlex.split(form.get('text', ''))
    except ValueError as error:
        return this.webhook_response(json={'response_type': 'ephemeral', 'text': f'{error}. {USAGE}'})
    if words == ['status']:
        lines = [f"{d['service']} {d['version']} by {d['by']}" for d in (history.get('value') if history.exists() else [])]
        return this.webhook_response(json={'response_type': 'ephemeral', 'text': '\n'.join(lines) or 'nothing yet'})
    if len(words) != 2:
        return this.webhook_response(json={'response_type': 'ephemeral', 'text': USAGE})
    service, version = words
    history.list_append({'service': service, 'version': version, 'by': form['user_name']})
    this.set_output(service=service, version=version)
    this.webhook_response(
        json={'response_type': 'in_channel', 'text': f'deploying {service} {version} for {form["user_name"]}'},
        headers={'x-flow': this.get('flow_name')},
    )
    return this.success(f'{form["user_name"]}: {service} {version}')

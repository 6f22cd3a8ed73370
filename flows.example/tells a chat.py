# /// script
# [tool.headrace]
# description = "Tells a chat how a flow ended: others name it as on_failure"
# ///
# Other flows name it in their metadata: on_failure = "tells a chat". Where to, says settings/notifications.yaml: the
# address of an incoming webhook of Slack, Mattermost or Microsoft Teams. Without one it logs what it would say.
# Try: headrace run 'backs up at night' fails:=true --no-wait


def handler(system, this, inputs):
    to = system.setting('notifications').get('value')
    text = f"{inputs.get('flow', 'something')} {inputs.get('status', 'ended')}: {inputs.get('message') or 'no message'}"
    if inputs.get('attempts', 1) > 1:
        text += f" (after {inputs['attempts']} attempts)"
    text += f"\nheadrace show {inputs.get('execution_id', 'latest')}"
    if not to['chat']:
        this.log(text)
        return this.success('nobody to tell')
    body = card(text) if to['chat_kind'] == 'teams' else {'text': text}
    this.task('REST', method='post', url=to['chat'], json=body)
    return this.success('told')


def card(text):
    """The form that Teams wants."""
    block = {'type': 'TextBlock', 'text': text, 'wrap': True}
    content = {'type': 'AdaptiveCard', 'version': '1.4', 'body': [block]}
    attachment = {'contentType': 'application/vnd.microsoft.card.adaptive', 'content': content}
    return {'type': 'message', 'attachments': [attachment]}

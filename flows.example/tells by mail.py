# /// script
# [tool.headrace]
# description = "Tells people by mail how a flow ended: others name it as on_failure"
# ///
# Other flows name it in their metadata: on_failure = "tells by mail". Who is told, and by which server, says
# settings/notifications.yaml; the password there is a reference, never the password itself. Without anybody it logs.
# Try: headrace run 'tells by mail' flow=nightly status=ENDED_ERROR message='the disk is full'


def handler(system, this, inputs):
    mail = system.setting('notifications').get('value').get('mail') or {}
    flow, status = inputs.get('flow', 'something'), inputs.get('status', 'ended')
    text = f"{flow} {status}: {inputs.get('message') or 'no message'}\n\nheadrace show {inputs.get('execution_id', 'latest')}"
    if not mail.get('to'):
        this.log(text)
        return this.success('nobody to tell')
    this.task('SMTP', from_=mail['from'], to=mail['to'], subject=f'{flow}: {status}', text=text, **mail['server'])
    return this.success('told')

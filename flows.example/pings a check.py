# /// script
# [tool.headrace]
# description = "Tells a dead man's switch that a flow ended: others name it as on_success and on_failure"
# ///
# Services such as Healthchecks tell people when a ping does not come. Other flows name this one in their metadata; the
# address of the check is in settings/notifications.yaml.
# Try: headrace run 'pings a check' status=ENDED_SUCCESS


def handler(system, this, inputs):
    check = system.setting('notifications').get('value')['check']
    if not check:
        return this.success('no check to ping')
    well = inputs.get('status') == 'ENDED_SUCCESS'
    this.task('REST', method='post', url=check if well else f'{check}/fail', text=inputs.get('message') or 'ended')
    return this.success('pinged')

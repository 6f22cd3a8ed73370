"""
How the wrappers are used, one after the other and inside of each other.
"""
import flow_api


def handler(system, this, inputs):
    key = inputs['key']
    quick = inputs.get('quick_seconds', 1)

    retried = this.using('wrappers/retry', attempts=4, delay=quick).flow(
        'wrappers/unsteady', id=key, payload=['kept', {'as': 'it is'}], name='unsteady thing'
    )
    this.set_output('retried', retried.get('output_value'))
    this.set_output('retried_message', retried.get('message'))

    delayed = this.using('wrappers/delayed start', delay=quick).flow('wrappers/unsteady', id=key, fails=0, wait=False)
    this.set_output('delayed_at_once', delayed.load('status').startswith('ENDED'))
    delayed.wait()
    this.set_output('delayed', delayed.get('output_value'))

    try:
        this.using('wrappers/timeout', seconds=quick).flow('wrappers/takes long', seconds=600)
    except flow_api.DependencyFailedError as error:
        this.set_output('timeout_message', error.execution.get('message'))
        this.set_output('timed_out', error.execution.get('output_value'))

    told = this.using('wrappers/notify', gateway=inputs['gateway'], to='ops@example.com').task(
        'REST', url=f"{inputs['gateway']}/echo/hello", name='say hello'
    )
    this.set_output('told', told.get('output_value')['json']['path'])
    this.using('wrappers/notify', gateway=inputs['gateway'], to='ops@example.com').script(
        'def handler(system, this):\n    return this.error("a script that fails")',
        name='a script', wait=system.return_when.ALL_ENDED,
    )
    return this.success('wrapped')

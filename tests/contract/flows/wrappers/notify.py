from lib import mail


def handler(system, this, inputs):
    """Tells somebody how a child ended."""
    child = system.execution(inputs['child_id'])
    child.run_async().wait(system.return_when.ALL_ENDED)
    name, status, message = child.get('name', 'status', 'message')
    if status != 'ENDED_SUCCESS' or not inputs.get('only_failures'):
        mail.send(this, inputs['gateway'], inputs['to'], f'{name}: {status}', message or '(no message)')
    this.save(output_value=child.get('output_value') or {})
    this.set_output('notified', inputs['to'])
    return this.success(message) if status == 'ENDED_SUCCESS' else this.error(message)

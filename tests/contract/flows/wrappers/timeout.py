import flow_api


def handler(system, this, inputs):
    """ Cancels a child that takes too long. """
    child = system.execution(inputs['child_id']).run_async()
    try:
        child.wait(system.return_when.ALL_ENDED, timeout=inputs['seconds'])
    except flow_api.DependencyTimeoutError:
        child.cancel()
        child.wait(return_when=system.return_when.ALL_ENDED)
        this.set_output('child_status', child.get('status'))
        return this.error(f"{inputs['child']['name']} took longer than {inputs['seconds']} s")
    this.save(output_value=child.get('output_value'))
    if child.get('status') != 'ENDED_SUCCESS':
        return this.error(child.get('message'))

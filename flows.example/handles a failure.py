"""A failing child raises in its parent, which may catch it and go on.

Try:  headrace run 'handles a failure' && headrace tree latest
"""

import flow_api


def handler(system, this):
    try:
        this.flow('fails on purpose', reason='the disk is full')
    except flow_api.DependencyFailedError as error:
        this.log('the child failed', why=error.execution.get('message'))
        this.set_output('rescued', True)
    # The same without exceptions: wait until it ended, however it did, and look.
    child = this.flow('fails on purpose', wait=system.return_when.ALL_ENDED)
    this.set_output('status', child.get('status'))
    return this.success('handled both')

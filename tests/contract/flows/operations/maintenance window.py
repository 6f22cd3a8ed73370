"""
Pauses everything with a certain name for the time of a maintenance, then lets it go on.
"""
import flow_api


def handler(system: flow_api.System, this: flow_api.Execution, inputs: dict):
    pattern = inputs.get('pattern', 'batch %')
    running = [
        execution
        for execution in system.executions(filter={
            'and': [
                {'field': 'name', 'op': 'like', 'value': pattern},
                {'field': 'status', 'op': 'in', 'value': ['RUNNING', 'WAITING', 'QUEUED']},
            ]
        })
        if execution.id != this.id
    ]
    for execution in running:
        execution.pause()
    this.log(paused=[e.get('name') for e in running])
    try:
        # they stop at their next call
        for execution in running:
            for _ in range(100):
                if execution.load('is_paused'):
                    break
                this.sleep(inputs.get('poll_seconds', 1))
            else:
                return this.error(f'{execution.get("name")} does not want to pause')
        this.set_output('paused', [e.get('name') for e in running])
        this.save(message='maintenance')
        this.sleep(inputs.get('window_seconds', 1800))
        this.set_output('still_paused', all(e.load('is_paused') for e in running))
    finally:
        for execution in running:
            execution.run_async()
    return this.success(f'{len(running)} executions were paused')

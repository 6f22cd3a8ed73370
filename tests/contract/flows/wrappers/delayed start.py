"""Starts a child later: this.using('wrappers/delayed start', delay=3600).flow('any flow')"""


def handler(system, this, inputs):
    delay = inputs.get('delay', 60)
    child = system.execution(inputs['child_id'])
    this.save(name=f'delayed start of {child.get("name")}')
    this.save(message=f'starts in {delay} seconds')
    this.sleep(delay)
    child.run()
    this.save(output_value=child.get('output_value'))
    return this.success(f'{child.get("name")} was started after {delay} seconds')

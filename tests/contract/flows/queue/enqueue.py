# adds work to the queue: list_append is atomic, so many can do this at the same time

def handler(system, this):
    inputs = this.get('input_value')
    queue = system.setting(inputs.get('queue', 'work queue'))
    for number in range(inputs.get('count', 1)):
        queue.list_append({'id': '%s-%d' % (inputs['prefix'], number), 'by': this.get('name')})
    return this.success('added %d' % inputs.get('count', 1))

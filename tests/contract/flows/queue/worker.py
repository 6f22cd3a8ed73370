"""
Takes work from the queue until it is empty. Several workers may run.

The queue is a setting with a list, the setting is also the lock around taking an item.
"""
import flow_api


def take(queue, timeout):
    queue.acquire(timeout=timeout)
    try:
        items = queue.load('value')
        if not items:
            return None
        item = items.pop(0)
        queue.save(value=items)
        return item
    finally:
        queue.release()


def handler(system, this):
    inputs = this.get('input_value')
    queue = system.setting(inputs.get('queue', 'work queue'))
    done = system.setting(inputs.get('done', 'work done'))
    count = 0
    while True:
        try:
            item = take(queue, inputs.get('lock_timeout', 60))
        except flow_api.LockTimeoutError as ex:
            this.log('the queue is locked', error=repr(ex))
            return this.error('could not get the lock')
        if item is None:
            break
        this.sleep(inputs.get('work_seconds', 1))
        done.list_append({'id': item['id'], 'worker': this.get('name')})
        count += 1
        this.save(message=f'{count} done')
    this.set_output('count', count)
    return this.success(f'worked on {count} items')

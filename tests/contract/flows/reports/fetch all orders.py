"""All pages of the order book; it answers 429 when asked too often."""
import collections


def pages(this, url, size):
    page = 1
    while page:
        task = this.task('REST', url=url, params={'page': page, 'per_page': size}, name=f'page {page}',
                         expected_status_code=[200, 429], retry_backoff=False)
        answer = task.get('output_value')
        if answer['status_code'] == 429:
            pause = float(answer['headers']['x-ratelimit-reset'])
            this.log('told to slow down', page=page, pause=pause, level='WARNING')
            this.append_output('pauses', page)
            this.sleep(pause)
            continue
        yield answer['json']['items']
        page = answer['json']['next_page']


def handler(system, this, inputs):
    cents = collections.Counter()
    ids = []
    for items in pages(this, f"{inputs['base_url']}/orders", inputs.get('page_size', 50)):
        for order in items:
            cents[order['customer']] += order['cents']
            ids.append(order['id'])
        this.save(message=f'{len(ids)} orders')
    this.set_output(count=len(ids), complete=ids == sorted(set(ids)), cents=dict(cents))
    return this.success(f'{len(ids)} orders, {sum(cents.values()) / 100:.2f} €')

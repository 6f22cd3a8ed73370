"""A REST task: its result is kept in the record, so it is never asked twice for the same answer.

Without an input it asks the daemon itself. Try:  headrace run 'asks a web service' url=http://127.0.0.1:8420/healthz
"""


def handler(system, this, inputs):
    answer = this.task('REST', url=inputs.get('url', 'http://127.0.0.1:8420/healthz')).get('output_value')
    this.log('it answered', status_code=answer['status_code'])
    this.set_output('json', answer.get('json'))

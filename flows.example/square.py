"""A child: what the handler returns becomes its output."""


def handler(system, this, inputs):
    number = inputs['number']
    return {'number': number, 'square': number * number}

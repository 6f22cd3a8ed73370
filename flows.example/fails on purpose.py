"""A flow that fails: the exception's last line becomes its message, the traceback stands in the record."""


def handler(system, this, inputs):
    this.log('about to fail')
    raise ValueError(inputs.get('reason', 'this flow fails on purpose'))

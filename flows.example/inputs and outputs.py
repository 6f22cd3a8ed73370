"""Inputs come in as a dict; outputs are set key by key, and people see both in the record.

Try:  headrace run 'inputs and outputs' name=Ada times:=3
"""


def handler(system, this, inputs):
    name = inputs.get('name', 'World')
    times = inputs.get('times', 1)
    for number in range(times):
        print(f'hello {name}, for the {number + 1}. time')
    this.set_output('greeting', f'hello {name}')
    this.set_output(name=name, times=times)
    this.save(message=f'greeted {name}')

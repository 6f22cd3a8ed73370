"""A parent that starts several children at once and waits for all of them.

Try:  headrace run 'squares in parallel' numbers:='[1, 2, 3]'
"""


def handler(system, this, inputs):
    numbers = inputs.get('numbers', [1, 2, 3, 4])
    children = [this.flow('square', number=number, wait=False) for number in numbers]
    this.wait_for(*children)
    squares = {str(child.get('output_value')['number']): child.get('output_value')['square'] for child in children}
    this.set_output(squares=squares, total=sum(squares.values()))
    this.log('added up', total=sum(squares.values()))

"""
Imports a CSV of customers. Each row is a child execution, so it can be looked at (and run again) on its own.

inputs:
    file: name of the file, default imports/customers.csv
    base_url
    parallel: how many at a time, default 5
"""
from lib.tables import as_text, from_csv


def handler(system, this):
    inputs = this.get('input_value')
    name = inputs.get('file', 'imports/customers.csv')
    rows = from_csv(system.file(name).get_text_content())
    parallel = inputs.get('parallel', 5)
    errors = []
    imported = 0
    waiting = []
    for line, row in enumerate(rows, start=2):
        waiting.append((line, row, this.flow(
            'reports/import one customer',
            name='line %d: %s' % (line, row['name']),
            row=row,
            base_url=inputs['base_url'],
            wait=False,
        )))
        if len(waiting) < parallel and line <= len(rows):
            continue
        this.wait_for(*[child for _, _, child in waiting], return_when=system.return_when.ALL_ENDED)
        for number, row, child in waiting:
            status, message = child.get('status', 'message')
            if status == 'ENDED_SUCCESS':
                imported += 1
            else:
                errors.append({'line': number, 'name': row['name'], 'error': message})
        waiting = []
        this.save(message='%d imported, %d errors' % (imported, len(errors)))
    this.set_output('imported', imported)
    this.set_output('errors', errors)
    if errors:
        system.file('imports/errors.txt').save(content=as_text(errors, ['line', 'name', 'error']))
        return this.error('%d of %d rows could not be imported' % (len(errors), len(rows)))
    return this.success('%d rows were imported' % imported)

def handler(system, this, inputs):
    row = inputs['row']
    if not row.get('name'):
        raise ValueError('a customer needs a name')
    credit = float(row['credit'].replace('.', '').replace(',', '.'))
    task = this.task(
        'REST',
        url=inputs['base_url'] + '/customers',
        method='POST',
        json={'name': row['name'], 'email': row['email'], 'credit': credit},
        expected_status_code=[201, 422],
    )
    result = task.get('output_value')
    if result['status_code'] == 422:
        return this.error(result['json']['error'])
    this.set_output('id', result['json']['id'])
    return this.success('customer %s' % result['json']['id'])

"""A password goes from a form to where it is needed, and nobody sees it on the way."""


def handler(system, this, inputs):
    message = system.message(
        subject=f'New password of {inputs["user"]}',
        body={
            'type': 'object',
            'properties': {
                'old': {'element': 'password', 'type': 'string', 'label': 'Old password', 'order': 1},
                'new': {'element': 'password', 'type': 'string', 'label': 'New password', 'order': 2, 'minLength': 8},
                'change': {'element': 'submit', 'type': 'boolean', 'label': 'Change it', 'order': 3},
            },
            'required': ['old', 'new'],
        },
    )
    this.set_output('message', message.get('id'))
    response = message.wait().get('response')
    this.log('got an answer', response=response)
    task = this.task(
        'REST',
        url=f"{inputs['base_url']}/crm/password",
        method='put',
        username=inputs['user'],
        password=response['old'],
        json={'password': response['new']},
        init={'protect_inputs': ['password', 'json']},
    )
    this.set_output('changed', task.get('output_value')['status_code'] == 200)
    this.set_output('length', len(response['new']))
    return this.success('changed')

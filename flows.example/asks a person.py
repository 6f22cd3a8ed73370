"""Asks a person with a form and goes on with the answer.

Try:  headrace run 'asks a person' --no-wait
      headrace messages
      headrace answer latest where=production deploy
The page of the message, http://127.0.0.1:8420/messages, does as well.
"""

FORM = {
    'type': 'object',
    'properties': {
        'what': {'element': 'markdown', 'description': 'Version 2.1 is ready to go.', 'order': 1},
        'where': {'element': 'dropdown', 'label': 'Where', 'enum': ['test', 'production'], 'default': 'test', 'order': 2},
        'note': {'element': 'string', 'label': 'A note', 'example': 'fixes a typo', 'order': 3},
        'deploy': {'element': 'submit', 'label': 'Deploy', 'required': ['where'], 'order': 4},
        'leave': {'element': 'submit', 'label': 'Leave it', 'required': [], 'order': 5},
    },
}


def handler(system, this):
    answer = this.message('Shall this be deployed?', body=FORM).get('response')
    if not answer.get('deploy'):
        return this.success('left as it is')
    this.set_output('where', answer['where'])
    return this.success(f'deployed to {answer["where"]}')

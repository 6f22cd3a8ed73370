"""Page one person after the other until somebody takes the incident."""
import flow_api


def handler(system: flow_api.System, this: flow_api.Execution, inputs: dict):
    rota = inputs.get('rota') or system.setting('on-call rota').get('value')
    patience = inputs.get('patience_seconds', 300)
    incident = inputs['incident']
    gateway = inputs['gateway']

    asked = []
    for level, person in enumerate(rota, start=1):
        this.save(message=f'level {level}: {person["name"]}')
        this.task('REST', url=f'{gateway}/pager', method='POST', json={'to': person['phone'], 'text': incident},
                  name=f'page {person["name"]}')
        message = system.message(
            subject=f'[{level}/{len(rota)}] {incident}',
            message_type='ERROR' if level == len(rota) else 'WARNING',
            body={
                'type': 'object',
                'properties': {
                    'text': {'element': 'markdown', 'description': f'**{person["name"]}**, please look at: {incident}', 'order': 1},
                    'minutes': {'element': 'number', 'type': 'number', 'label': 'Ready in how many minutes?', 'default': 15, 'order': 2},
                    'take it': {'element': 'submit', 'type': 'boolean', 'label': 'I take it', 'order': 3},
                    'pass on': {'element': 'submit', 'type': 'boolean', 'label': 'Ask the next one', 'order': 4},
                },
            },
        )
        asked.append({'name': person['name'], 'message': message.get('id')})
        this.set_output('asked', asked)
        try:
            answer = message.wait(timeout=patience).get('response')
        except flow_api.MessageResponseTimeoutError:
            this.log(f'{person["name"]} did not answer', level='WARNING')
            message.delete()
            continue
        if answer.get('take it'):
            this.set_output(taken_by=person['name'], minutes=answer['minutes'])
            return this.success(f'{person["name"]} looks at it in {answer["minutes"]} minutes')
        this.log(f'{person["name"]} passes on')
    return this.error(f'nobody takes "{incident}"')

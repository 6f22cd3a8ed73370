"""
Somebody has to say yes before a version goes to production.

    this.flow('deployment/deploy with approval', service='shop', version='1.4', base_url=…)
"""
import flow_api


def handler(system: flow_api.System, this: flow_api.Execution, inputs: dict):
    service, version = inputs['service'], inputs['version']
    this.save(name=f'deploy {service} {version}')
    question = system.message(
        subject=f'Deploy {service} {version}?',
        message_type='WARNING',
        body={
            'type': 'object',
            'properties': {
                'text': {'element': 'markdown', 'order': 1, 'description': f'Requested by {system.get_own_user().get("name")}'},
                'comment': {'element': 'textarea', 'type': 'string', 'label': 'Comment', 'order': 2},
                'stages': {'element': 'number', 'type': 'integer', 'label': 'Stages', 'default': 2, 'minimum': 1, 'maximum': 3, 'order': 3},
                'approve': {'element': 'submit', 'type': 'boolean', 'label': 'Deploy', 'order': 4},
                'reject': {'element': 'submit', 'type': 'boolean', 'label': 'Reject', 'order': 5, 'required': ['comment']},
            },
        },
    )
    this.set_output(message_id=question.get('id'))
    try:
        answer = question.wait(timeout=inputs.get('timeout_seconds', 3600)).get('response')
    except flow_api.MessageResponseTimeoutError:
        return this.error(f'nobody approved {service} {version} in time')
    if answer.get('reject'):
        return this.error(f'rejected: {answer["comment"]}')
    for stage in ('test', 'staging', 'production')[3 - answer['stages']:]:
        this.save(message=f'deploying to {stage}')
        this.flow('deployment/deploy one stage', service=service, version=version, stage=stage, base_url=inputs['base_url'])
        this.append_output('stages', stage)
    this.set_output('comment', answer.get('comment', ''))
    return this.success(f'{service} {version} is live')

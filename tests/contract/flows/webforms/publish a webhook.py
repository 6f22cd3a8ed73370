# sets up a webhook for the chat and asks for its key first, if it is not there yet
import flow_api


def handler(system, this):
    inputs = this.get('input_value')
    name = inputs.get('webhook', 'greeter')
    hook = system.setting(f'client.webhook.{name}')
    if hook.exists():
        this.log('it is there already', flow=hook.get('value')['flow_name'])
        return this.success('nothing to do')
    c_key = system.message(
        subject='Authorisation key',
        message_type='POPUP',
        body={
            'type': 'object',
            'properties': {
                'key': {
                    'label': f'Please give a key for the webhook {name}. Can be any text.',
                    'element': 'string',
                    'type': 'string',
                    'order': 1,
                },
                'start': {'label': 'OK', 'element': 'submit', 'type': 'boolean', 'order': 2},
            },
            'required': ['key'],
        },
    ).wait().get('response')['key']
    system.setting(
        name=f'client.webhook.{name}',
        value={
            'flow_name': 'webforms/greeter',
            'user_name': system.get_own_user().get('name'),
            'key': c_key,
        },
    )
    return this.success(f'published {name}')

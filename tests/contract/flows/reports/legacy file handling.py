# written in 2019, still running
import base64
import json

import flow_api


def handler(system, this):
    inputs = this.get('input_value')
    logo = bytes(range(256))
    try:
        old = system.file('legacy/counter.json').get('content')
        counter = json.loads(old)['counter']
    except flow_api.CloudomationException as ex:
        this.log('no counter yet', repr(ex))
        counter = 0
    system.file('legacy/counter.json').save(content=json.dumps({'counter': counter + 1}))
    # binary: we have base64 already, so do not convert
    system.file('legacy/logo.bin').save(content=base64.b64encode(logo).decode(), convert_binary=False)
    system.file('legacy/readme.txt').save(text='line 1\nline 2\n')
    system.file(path='legacy/copy.bin', content=system.file('legacy/logo.bin').get_bytes_content())
    f = system.file('legacy/logo.bin')
    this.logln(size=f.content_size_bytes(), same=f.get_base64_content() == base64.b64encode(logo).decode())
    names = [x.get('name') for x in system.files(dir='legacy')]
    this.save(output_value=dict(
        counter=counter + 1,
        names=names,
        readme=system.file('legacy/readme.txt').get('content'),
        binary=system.file('legacy/copy.bin').get_bytes_content() == logo,
        what=inputs.get('what'),
    ))
    return this.success('ok')

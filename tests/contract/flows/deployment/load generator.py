"""Clones a template many times: the way to run the same thing with other inputs."""
import time


def handler(system, this, inputs):
    template = this.task('REST', url=f"{inputs['base_url']}/echo/load", params={'run': inputs.get('run', 'a')}, save=False)
    began = time.monotonic()
    shots = []
    for number in range(inputs.get('shots', 20)):
        shots.append(template.clone(name=f'shot {number}', method='POST', json={'number': number}, wait=False))
    this.wait_for(*shots, return_when=system.return_when.ALL_ENDED)
    took = time.monotonic() - began
    answered = sorted(s.get('output_value')['json']['body']['number'] for s in shots if s.get('status') == 'ENDED_SUCCESS')
    # one that really ran can be cloned too
    again = shots[0].clone(json={'number': 1000}, init={'protect_inputs': ['json']})
    this.set_output(answered=answered, again=again.get('output_value')['json'], again_id=again.id)
    this.log('rate', per_second=round(len(shots) / took, 1))
    return this.success(f'{len(answered)} of {len(shots)} shots')

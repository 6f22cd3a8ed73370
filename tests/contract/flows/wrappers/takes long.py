def handler(system, this):
    try:
        this.sleep(this.get('input_value').get('seconds', 600))
    finally:
        this.log('putting the tools away')
    return {'finished': True}

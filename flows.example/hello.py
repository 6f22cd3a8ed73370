"""The smallest flow: it logs a line and says that all went well."""


def handler(system, this):
    this.log('hello from a flow')
    return this.success('all done')

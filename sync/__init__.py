"""Git to catalogue: mirror, check, snapshot, publish. Never runs a flow, never waits for one."""

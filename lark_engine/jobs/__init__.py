"""Long runs that survive everything: a job is a folder, a detached supervisor owns its run, anyone may watch.

- folder: the files of a job, and finding jobs; records: what those files say
- status: what state a job is in, from its files and processes alone
- actions: submit, stop, resume, clone, remove
- launchers: where the supervisor is started: here, on a Ray cluster, or by a batch system's script
- supervise: the process that owns a run; leases, devices and needs: what it waits for; verdicts: how it ended
- membership: what the command of a job knows of it; foreground: a stage that was started in a terminal
- failures: why a job failed; signs: which text means what; remedies: what to do, from the command's own options
- logs: the ends of a log, however long it is
"""

"""What `lark doctor` looks at: whether this machine can run what LARK needs, the first conflict, and its cure.

- checks: one finding, and which conflict comes first
- children: short-lived processes of other interpreters, where everything heavy is imported
- interpreters, versions, imports: what is installed where, what was declared, and what really imports
- devices, disk, limits: cores, memory, GPUs; room, locks, clock; cgroups and open files
- examine: all of it, in order
"""

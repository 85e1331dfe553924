"""Studies: grids of runs that a file declares, run on one machine or a cluster, and what they come to.

A study is a TOML file, values alone:

    title = "Any offline policy"
    tasks = ["mujoco/hopper-medium", "mujoco/walker2d-medium"]
    seeds = 3

    [defaults.online]                   # flags and settings of all online methods; defaults.offline likewise
    set = ["env_steps=20_000"]

    [offline.td3_bc]                    # runs that others start from, one per task; named as the algorithm
    set = ["updates=20_000"]

    [online.o2td3]                      # a run per task and start
    from = ["td3_bc"]
    label = "O2TD3"

    [online.replay]                     # or one per value that a setting is given
    algorithm = "o2td3"
    from = ["td3_bc"]
    vary = {"replay.mode" = ["none", "half", "all"]}

`grid` makes its cells, commands and what they need, `progress` says how far each has come, `local` and `slurm` run
them. The folders of this package hold the studies that come with it.
"""

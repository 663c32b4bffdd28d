"""Which package next, on which node: pure decisions over frozen values, for builds and for the simulator.

`tasks` and `hosts` are what is to be done and what there is to do it with, `core` the state of a run and
what follows from an event, `rules` how it chooses (ours and those of other builders), `lookahead` which
rule is best from here on, `simulation` a run without building, `bound` what no schedule can beat.
"""

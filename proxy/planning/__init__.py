"""What a configuration would do with a traffic, found out on a virtual clock.

`traffic` (what is asked, how the resources count) becomes `arrivals`; `rehearsal` runs them through
the real exchange and the real actors against simulated resources; `findings` is what came of it,
`report` and `chart` show it. `command` is `python -m proxy plan`.
"""

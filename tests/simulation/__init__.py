"""The project in a simulated world: machines, disks, wires and clocks that fail on purpose, and whoever sees all of it.

See docs/simulation.md.
"""

"""Training runs: a loop that can be stopped and continued, its clocks, its target, and the files it leaves."""

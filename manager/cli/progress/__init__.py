"""Following a service until it has converged: the decision (pure), the bars (pure), the loop (edge)."""

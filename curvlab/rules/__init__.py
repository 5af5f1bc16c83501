"""Rules: how a direction becomes a step, step sizes and damping chosen by the quadratic model."""
